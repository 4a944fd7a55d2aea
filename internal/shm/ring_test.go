package shm

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"time"
)

func bothMemories(t *testing.T, f func(t *testing.T, heap bool)) {
	t.Run("heap", func(t *testing.T) { f(t, true) })
	t.Run("memfd", func(t *testing.T) { f(t, false) })
}

func TestEverySizeArrivesAsItWasSent(t *testing.T) {
	bothMemories(t, func(t *testing.T, heap bool) {
		ring := newRing(t, heap)
		rd := ring.reader(ReaderConfig{})
		w := ring.writer(laneOptions{capacity: 64 << 10})
		seq := uint64(0)
		for round := range 3 {
			for n := 0; n <= 1000; n++ {
				seq++
				if err := w.Publish(forever, int64(n+1), payloadOf(seq, n)); err != nil {
					t.Fatal(err)
				}
				m, err := rd.Next(within(t))
				if err != nil {
					t.Fatal(err)
				}
				if m.Sequence != seq || m.Type != int64(n+1) || len(m.Payload) != n || !checkPayload(m.Payload, seq) || m.Lost != 0 || m.Lane != 100 {
					t.Fatalf("round %d, %d bytes: %+v", round, n, m)
				}
				if d := time.Since(time.Unix(0, m.Time)); d < -time.Second || d > time.Minute {
					t.Fatalf("published %v ago", d)
				}
			}
		}
		if _, ok, err := rd.TryNext(); ok || err != nil {
			t.Errorf("something else: %v", err)
		}
		if err := w.Publish(forever, 1, make([]byte, 16<<10-31)); !errors.Is(err, ErrTooLarge) {
			t.Errorf("one byte too many: %v", err)
		}
		if err := w.Publish(forever, 1, make([]byte, 16<<10-32)); err != nil {
			t.Error(err)
		}
		if err := w.Publish(forever, 0, nil); !errors.Is(err, ErrType) {
			t.Errorf("type 0: %v", err)
		}
	})
}

func TestLosslessLosesNothing(t *testing.T) {
	bothMemories(t, func(t *testing.T, heap bool) {
		ring := newRing(t, heap)
		rd := ring.reader(ReaderConfig{Lossless: true})
		w := ring.writer(laneOptions{capacity: 64 << 10, lossless: true})
		const total = 200_000
		failed := make(chan error, 1)
		go func() {
			rng := rand.New(rand.NewPCG(1, 2))
			buf := make([]byte, 2000)
			for seq := uint64(1); seq <= total; seq++ {
				b := buf[:rng.IntN(200)]
				if seq%100 == 0 {
					b = buf
				}
				fillPayload(b, seq)
				if err := w.Publish(context.Background(), 1, b); err != nil {
					failed <- err
					return
				}
			}
			failed <- nil
		}()
		ctx := within(t)
		for seq := uint64(1); seq <= total; seq++ {
			m, err := rd.Next(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if m.Sequence != seq || m.Lost != 0 || !checkPayload(m.Payload, seq) {
				t.Fatalf("after %d: %d, lost %d, intact %v", seq-1, m.Sequence, m.Lost, checkPayload(m.Payload, m.Sequence))
			}
		}
		if err := <-failed; err != nil {
			t.Error(err)
		}
		t.Logf("%+v %+v", w.Stats(), rd.Stats())
	})
}
