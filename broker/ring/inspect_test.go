package ring

import (
	"context"
	"encoding/binary"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipcd/ipcd/internal/shm"
)

func TestInspectionShowsHowFarEverybodyIs(t *testing.T) {
	w := newWorld(t, Options{})
	w.create(alice, "/r", small)
	p := w.producer(alice, "/r")
	fast, slow := w.consumer(bob, "/r"), w.consumer(bob, "/r")
	out, f, s := p.writer(t), fast.reader(t, shm.Oldest), slow.reader(t, shm.Oldest)
	for range 10 {
		if err := out.Publish(context.Background(), 1, make([]byte, 32)); err != nil {
			t.Fatal(err)
		}
	}
	for range 10 {
		if _, err := f.Next(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	if _, ok, err := f.TryNext(); ok || err != nil { // shows how far it is
		t.Fatal(ok, err)
	}
	i := w.info("/r")
	l := i.Lanes[0]
	if l.ID != p.ID() || l.PID != 1 || l.Position != 640 || l.Sequence != 10 || l.Oldest != 0 || l.Ended || l.Unreadable || l.Bytes != laneSize ||
		l.Stalest != slow.ID() || l.StalestLag != 10 || l.Joined.IsZero() {
		t.Errorf("lane %+v", l)
	}
	a, b := i.Consumers[0], i.Consumers[1]
	if a.ID != fast.ID() || a.Received != 10 || a.Lag != 0 || len(a.Lanes) != 1 || a.Lanes[0] != (CursorInfo{LaneID: p.ID(), Cursor: 640, Sequence: 10}) {
		t.Errorf("fast consumer %+v", a)
	}
	if b.ID != slow.ID() || b.Received != 0 || b.Lag != 10 || len(b.Lanes) != 1 || b.Lanes[0] != (CursorInfo{LaneID: p.ID(), LagMessages: 10, LagBytes: 640}) {
		t.Errorf("slow consumer %+v", b)
	}
	if i.Bytes != laneSize+2*shm.ConsumerSize || i.Epoch != slow.Epoch() {
		t.Errorf("%+v", i)
	}
	_ = s
}

func TestInspectionOfNonsenseDoesNoHarm(t *testing.T) {
	w := newWorld(t, Options{})
	w.create(alice, "/r", small)
	p, c := w.producer(alice, "/r"), w.consumer(bob, "/r")
	for i := 0; i < shm.LaneData; i += 8 {
		binary.LittleEndian.PutUint64(p.memory.Bytes()[i:], ^uint64(i))
	}
	for i := 0; i < shm.ConsumerSize; i += 8 {
		binary.LittleEndian.PutUint64(c.memory.Bytes()[i:], p.ID())
	}
	w.byName["/r"].sample()
	clear(p.memory.Bytes())
	i := w.info("/r")
	if len(i.Lanes) != 1 || i.Lanes[0].Rate != 0 || i.Lanes[0].Stalest != 0 || len(i.Consumers) != 1 || i.Consumers[0].Lag != 0 || i.Consumers[0].Lanes[0].Cursor != p.ID() {
		t.Errorf("%+v", i)
	}
}

func TestRatesAreOverAboutTheLastSecond(t *testing.T) {
	start := time.Unix(1000, 0)
	at := func(seconds float64, count uint64) rateSample {
		return rateSample{start.Add(time.Duration(seconds * float64(time.Second))), count}
	}
	for what, c := range map[string]struct {
		samples []rateSample
		now     rateSample
		want    float64
	}{
		"no sample":        {nil, at(1, 100), 0},
		"a second":         {[]rateSample{at(0, 50)}, at(1, 150), 100},
		"half a second":    {[]rateSample{at(0, 50)}, at(0.5, 100), 100},
		"just now":         {[]rateSample{at(0, 50)}, at(0.05, 100), 0},
		"the older":        {[]rateSample{at(0, 50), at(1, 150)}, at(1.5, 200), 100},
		"the newer":        {[]rateSample{at(0, 1000), at(1, 1150)}, at(2, 1160), 10},
		"two are kept":     {[]rateSample{at(0, 0), at(1, 1000), at(2, 1010)}, at(2.5, 1015), 10},
		"backwards":        {[]rateSample{at(0, 50)}, at(1, 49), 0},
		"an overflow":      {[]rateSample{at(0, 0)}, at(1, 1<<63), 1 << 63},
		"the clock is set": {[]rateSample{at(5, 0)}, at(1, 10), 0},
	} {
		var r rates
		for _, s := range c.samples {
			r.add(s)
		}
		if got := r.since(c.now); got != c.want {
			t.Errorf("%s: %v, want %v", what, got, c.want)
		}
	}
}

func TestRatesAreSampled(t *testing.T) {
	w := newWorld(t, Options{})
	w.create(alice, "/r", small)
	s := w.subscribe(SubscribeOptions{})
	w.publish(1, 2, 3)
	s.read(t, 3)
	soon(t, "watch takes samples", func() bool {
		rg := w.byName["/r"]
		rg.mu.Lock()
		defer rg.mu.Unlock()
		return !rg.lanes[0].rates.samples[0].at.IsZero() && !rg.consumers[0].rates.samples[0].at.IsZero()
	})
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	soon(t, "rates show", func() bool {
		w.publish(4)
		s.read(t, 1)
		if _, err := s.Next(ended, make([]shm.Message, 1)); err != context.Canceled { // with nothing to read it shows what it has read
			t.Error(err)
		}
		i := w.info("/r")
		return i.Lanes[0].Rate > 0 && i.Consumers[0].Rate > 0
	})
}

func TestFaultsBecomeErrors(t *testing.T) {
	// A mapping beyond the end of its file: reading it raises SIGBUS.
	fd, err := unix.MemfdCreate("test", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	b, err := unix.Mmap(fd, 0, shm.PageSize, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(b) }()
	var got byte
	if err := guarded(func() { got = b[0] }); err == nil {
		t.Errorf("read %d", got)
	}
	if err := guarded(func() {}); err != nil {
		t.Error(err)
	}
	defer func() {
		if recover() == nil {
			t.Error("a panic that is no fault was swallowed")
		}
	}()
	_ = guarded(func() { panic("test") })
}

func TestDefectsAreNotTakenForFaults(t *testing.T) {
	for what, defect := range map[string]func(){
		"nil":   func() { var m *Member; m.lossless = true },
		"index": func() { b := []byte{}; b[len(b)] = 1 },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: the panic was swallowed", what)
				}
			}()
			_ = guarded(defect)
		}()
	}
}

func TestConsumerIsBehindInALaneThatItHasNotTakenUp(t *testing.T) {
	w := newWorld(t, Options{})
	w.create(alice, "/r", small)
	asleep := w.consumer(alice, "/r")
	p := w.producer(alice, "/r")
	out := p.writer(t)
	for range 3 {
		if err := out.Publish(context.Background(), 1, make([]byte, 32)); err != nil {
			t.Fatal(err)
		}
	}
	if c := w.info("/r").Consumers[0]; c.Lag != 3 || asleep.Behind() != 3 {
		t.Errorf("a consumer that has not looked yet is %d, and %d, behind", c.Lag, asleep.Behind())
	}
	late := w.consumer(alice, "/r") // it begins at the end
	if late.Behind() != 0 {
		t.Errorf("one that came later is %d behind", late.Behind())
	}
}
