package shm

import (
	"encoding/binary"
	"errors"
	"flag"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

var tornFor = flag.Duration("shm.torn", time.Minute, "how long to look for torn reads")

// A producer laps its consumer again and again, and pauses in the middle of copies.
func TestReadsAreNeverTorn(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	ring := newRing(t, false)
	rd := ring.reader(ReaderConfig{})
	w := ring.writer(laneOptions{capacity: CapacityMin})
	var stop atomic.Bool
	failed := make(chan error, 1)
	var published uint64
	go func() {
		rng := rand.New(rand.NewPCG(seed, 1))
		for seq := uint64(1); !stop.Load(); seq++ {
			b, err := w.Claim(forever, 8+rng.IntN(3000))
			if err != nil {
				failed <- err
				return
			}
			half := rng.IntN(len(b))
			whole := payloadOf(seq, len(b))
			copy(b[:half], whole)
			switch rng.IntN(8) {
			case 0:
				runtime.Gosched()
			case 1, 2:
				for range rng.IntN(2000) {
					pause()
				}
			}
			copy(b[half:], whole[half:])
			if err := w.Commit(1, len(b)); err != nil {
				failed <- err
				return
			}
			published = seq
		}
		failed <- nil
	}()
	began := time.Now()
	var received, lost uint64
	check := func(m Message) {
		if !checkPayload(m.Payload, m.Sequence) {
			t.Fatalf("message %d of %d bytes is torn", m.Sequence, len(m.Payload))
		}
		received++
		lost += m.Lost
		if received+lost != m.Sequence {
			t.Fatalf("at %d: %d received and %d lost", m.Sequence, received, lost)
		}
	}
	for time.Since(began) < *tornFor {
		m, err := rd.Next(within(t))
		if err != nil {
			t.Fatal(err)
		}
		check(m)
	}
	stop.Store(true)
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
	for {
		m, ok, err := rd.TryNext()
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			break
		}
		check(m)
	}
	if received+lost != published {
		t.Errorf("%d published, %d received, %d lost", published, received, lost)
	}
	if received < 1000 || lost < 1000 {
		t.Errorf("only %d received and %d lost: the producer did not lap the consumer", received, lost)
	}
	t.Logf("%d received, %d lost", received, lost)
}

// Payloads of the last lap look like frames. Nothing at or past published may ever be taken for one.
func TestOldPayloadsAreNotTakenForFrames(t *testing.T) {
	ring := newRing(t, false)
	rd := ring.reader(ReaderConfig{})
	w := ring.writer(laneOptions{capacity: CapacityMin})
	forged := make([]byte, 4096)
	for i := 0; i < len(forged); i += FrameHeader {
		binary.LittleEndian.PutUint64(forged[i:], 1<<40+uint64(i)) // a later sequence
		binary.LittleEndian.PutUint32(forged[i+8:], 0)
		binary.LittleEndian.PutUint64(forged[i+16:], 666)
	}
	const total = 300_000
	done := make(chan error, 1)
	go func() {
		rng := rand.New(rand.NewPCG(3, 4))
		for range total {
			if err := w.Publish(forever, 1, forged[:rng.IntN(len(forged))]); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	var last, received, lost uint64
	for last < total {
		m, err := rd.Next(within(t))
		if err != nil {
			t.Fatal(err)
		}
		if m.Type != 1 || m.Sequence <= last || m.Sequence > total {
			t.Fatalf("after %d: a message %d of type %d that nobody sent", last, m.Sequence, m.Type)
		}
		last = m.Sequence
		received++
		lost += m.Lost
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if received+lost != total {
		t.Errorf("%d received, %d lost of %d", received, lost, total)
	}
}

func TestWhoComesLateLearnsWhatItLost(t *testing.T) {
	ring := newRing(t, true)
	rd := ring.reader(ReaderConfig{Types: func(typ int64) bool { return typ == 2 }})
	w := ring.writer(laneOptions{capacity: CapacityMin})
	publish := func(n int) {
		t.Helper()
		for range n {
			if err := w.Publish(forever, 1+int64(w.Sequence()%2), make([]byte, 1000)); err != nil {
				t.Fatal(err)
			}
		}
	}
	publish(10)
	drain := func() (received int, lost uint64) {
		for {
			m, ok, err := rd.TryNext()
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				return received, lost
			}
			if m.Type != 2 {
				t.Errorf("type %d", m.Type)
			}
			received++
			lost += m.Lost
		}
	}
	if n, lost := drain(); n != 5 || lost != 0 {
		t.Errorf("%d received, %d lost", n, lost)
	}
	publish(1000)
	if s := rd.Stats(); s.Lanes[0].Lag != 1000 || s.Lanes[0].LagBytes == 0 {
		t.Errorf("%+v", s)
	}
	n, lost := drain()
	// Of the 1000, those that are left alternate between the types.
	if left := 1000 - int(lost); n != left/2 && n != (left+1)/2 || lost < 900 {
		t.Errorf("%d received, %d lost", n, lost)
	}
	if s := rd.Stats(); s.Lost != lost || s.Lanes[0].Lost != lost || s.Lanes[0].Lag != 0 || s.Received != uint64(5+n) {
		t.Errorf("%+v", s)
	}
}

func TestStartsWhereItIsTold(t *testing.T) {
	ring := newRing(t, true)
	w := ring.writer(laneOptions{capacity: CapacityMin})
	publish := func(n int) {
		for range n {
			if err := w.Publish(forever, 1, make([]byte, 968)); err != nil { // 1000 bytes a frame, 65 fit
				t.Fatal(err)
			}
		}
	}
	publish(1000)
	first := func(s Start) (m Message, ok bool) {
		t.Helper()
		m, ok, err := ring.reader(ReaderConfig{Start: s}).TryNext()
		if err != nil {
			t.Fatal(err)
		}
		return m, ok
	}
	if m, ok := first(Oldest); !ok || m.Sequence < 1000-65 || m.Sequence > 1000-60 || m.Lost != 0 {
		t.Errorf("oldest: %d, lost %d", m.Sequence, m.Lost)
	}
	if m, ok := first(Newest); ok {
		t.Errorf("newest: %d", m.Sequence)
	}
	if m, ok := first(FromSequence(990)); !ok || m.Sequence != 990 || m.Lost != 0 {
		t.Errorf("from 990: %d, lost %d", m.Sequence, m.Lost)
	}
	if m, ok := first(FromSequence(100)); !ok || m.Sequence < 935 || m.Lost != m.Sequence-100 {
		t.Errorf("from 100: %d, lost %d", m.Sequence, m.Lost)
	}
	if m, ok := first(FromSequence(1003)); ok {
		t.Errorf("from 1003: %d", m.Sequence)
	}
	late := ring.reader(ReaderConfig{Start: FromSequence(1003)})
	fresh := ring.reader(ReaderConfig{})
	publish(4)
	if m, ok, err := late.TryNext(); !ok || err != nil || m.Sequence != 1003 || m.Lost != 0 {
		t.Errorf("from 1003: %d, lost %d, %v", m.Sequence, m.Lost, err)
	}
	if m, ok, err := fresh.TryNext(); !ok || err != nil || m.Sequence != 1001 || m.Lost != 0 {
		t.Errorf("newest: %d, lost %d, %v", m.Sequence, m.Lost, err)
	}
}

func TestBorrowedViewSaysWhenItIsGone(t *testing.T) {
	ring := newRing(t, true)
	rd := ring.reader(ReaderConfig{})
	w := ring.writer(laneOptions{capacity: CapacityMin})
	for seq := uint64(1); seq <= 3; seq++ {
		if err := w.Publish(forever, 1, payloadOf(seq, 5000)); err != nil {
			t.Fatal(err)
		}
	}
	if m, err := rd.Next(forever); err != nil || m.Sequence != 1 {
		t.Fatal(m.Sequence, err)
	}
	v, err := rd.View(forever)
	if err != nil || v.Sequence != 2 || !checkPayload(v.Payload, 2) || !v.Valid() {
		t.Fatalf("%d, %v", v.Sequence, err)
	}
	if m, err := rd.Next(forever); err != nil || m.Sequence != 3 || !checkPayload(m.Payload, 3) {
		t.Fatal(m.Sequence, err)
	}
	if err := w.Publish(forever, 1, payloadOf(4, 5000)); err != nil {
		t.Fatal(err)
	}
	if v, err = rd.View(forever); err != nil || v.Sequence != 4 {
		t.Fatal(v.Sequence, err)
	}
	for seq := uint64(5); seq < 30; seq++ {
		if err := w.Publish(forever, 1, payloadOf(seq, 5000)); err != nil {
			t.Fatal(err)
		}
	}
	if v.Valid() {
		t.Error("the payload was overwritten, and the view says it is valid")
	}
	var m Message
	if m, err = rd.Next(forever); err != nil || m.Lost == 0 || m.Sequence != 5+m.Lost {
		t.Errorf("%d, lost %d, %v", m.Sequence, m.Lost, err)
	}
}

func TestClaimIsInvisibleUntilCommitted(t *testing.T) {
	ring := newRing(t, true)
	rd := ring.reader(ReaderConfig{})
	w := ring.writer(laneOptions{capacity: CapacityMin})
	for i := range 500 { // over the end of the data
		b, err := w.Claim(forever, 1000)
		if err != nil || len(b) != 1000 || cap(b) != 1000 {
			t.Fatal(len(b), err)
		}
		if _, err := w.Claim(forever, 1); !errors.Is(err, ErrClaim) {
			t.Fatalf("a second claim: %v", err)
		}
		if err := w.Publish(forever, 1, nil); !errors.Is(err, ErrClaim) {
			t.Fatalf("publishing beside a claim: %v", err)
		}
		copy(b, payloadOf(uint64(i+1), 900))
		if _, ok, _ := rd.TryNext(); ok {
			t.Fatal("it can be read before it is committed")
		}
		if i%3 == 1 {
			w.Abort()
			if err := w.Commit(1, 10); !errors.Is(err, ErrNoClaim) {
				t.Fatalf("committing what was aborted: %v", err)
			}
			if err := w.Publish(forever, 9, payloadOf(uint64(i+1), 900)); err != nil {
				t.Fatal(err)
			}
		} else {
			if err := w.Commit(9, 2000); !errors.Is(err, ErrNoClaim) {
				t.Fatalf("committing more than was claimed: %v", err)
			}
			if err := w.Commit(9, 900); err != nil {
				t.Fatal(err)
			}
		}
		if m, ok, err := rd.TryNext(); !ok || err != nil || m.Type != 9 || len(m.Payload) != 900 || !checkPayload(m.Payload, uint64(i+1)) || m.Sequence != uint64(i+1) {
			t.Fatalf("%d: %v %v, %d bytes, sequence %d", i, ok, err, len(m.Payload), m.Sequence)
		}
	}
}

func TestBatchIsPublishedInOrder(t *testing.T) {
	ring := newRing(t, true)
	rd := ring.reader(ReaderConfig{})
	w := ring.writer(laneOptions{capacity: CapacityMin})
	if n, err := w.PublishBatch(forever, []Message{{Type: 1}, {Type: 2, Payload: []byte("b")}, {Type: 0}, {Type: 3}}); n != 2 || !errors.Is(err, ErrType) {
		t.Errorf("%d, %v", n, err)
	}
	if err := w.PublishV(forever, 3, [][]byte{[]byte("gat"), nil, []byte("hered")}); err != nil {
		t.Error(err)
	}
	into := make([]Message, 10)
	if n, err := rd.NextBatch(forever, into); n != 3 || err != nil || into[1].Type != 2 || string(into[1].Payload) != "b" || string(into[2].Payload) != "gathered" || into[2].Sequence != 3 {
		t.Errorf("%d, %v, %+v", n, err, into[:n])
	}
	big := make([]Message, 100)
	for i := range big {
		big[i] = Message{Type: int64(i + 1), Payload: make([]byte, 10_000)}
	}
	if n, err := w.PublishBatch(forever, big); n != 100 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	m, err := rd.Next(forever)
	if err != nil || m.Lost == 0 || m.Sequence != 4+m.Lost || m.Type != int64(m.Sequence-3) {
		t.Errorf("%+v %v", m.Sequence, err)
	}
}

func TestWhoIsLappedBeforeItsFirstReadLearnsIt(t *testing.T) {
	ring := newRing(t, true)
	w := ring.writer(laneOptions{capacity: CapacityMin})
	publish := func(n int) {
		for range n {
			if err := w.Publish(forever, 1, make([]byte, 1000)); err != nil {
				t.Fatal(err)
			}
		}
	}
	publish(10)
	rd := ring.reader(ReaderConfig{})
	publish(1000)
	m, ok, err := rd.TryNext()
	if !ok || err != nil || m.Lost < 900 || m.Sequence != 11+m.Lost {
		t.Errorf("the first message is %d, lost %d, %v", m.Sequence, m.Lost, err)
	}
}
