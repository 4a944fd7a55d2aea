package shm

import (
	"context"
	"testing"
)

func BenchmarkPublishNobody(b *testing.B) {
	ring := newRing(b, false)
	w := ring.writer(laneOptions{capacity: 1 << 20})
	p := make([]byte, 128)
	for b.Loop() {
		_ = w.Publish(forever, 1, p)
	}
}
func BenchmarkPublishUntimed(b *testing.B) {
	ring := newRing(b, false)
	w := ring.writer(laneOptions{capacity: 1 << 20, untimed: true})
	p := make([]byte, 128)
	for b.Loop() {
		_ = w.Publish(forever, 1, p)
	}
}

func benchStream(b *testing.B, lossless bool) {
	ring := newRing(b, false)
	rd := ring.reader(ReaderConfig{Lossless: lossless})
	w := ring.writer(laneOptions{capacity: 4 << 20, lossless: lossless})
	p := make([]byte, 128)
	done := make(chan struct{})
	go func() {
		for range b.N {
			_ = w.Publish(forever, 1, p)
		}
		close(done)
	}()
	ctx := context.Background()
	for last := 0; last < b.N; {
		m, err := rd.Next(ctx)
		if err != nil {
			b.Fatal(err)
		}
		last = int(m.Sequence)
	}
	<-done
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds()/1e6, "M/s")
	s := w.Stats()
	b.ReportMetric(float64(s.Wakes)/float64(b.N)*100, "wakes/100")
}
func BenchmarkLossless(b *testing.B)  { benchStream(b, true) }
func BenchmarkOverwrite(b *testing.B) { benchStream(b, false) }

func BenchmarkRoundTrip(b *testing.B) {
	ring := newRing(b, false)
	r1 := ring.reader(ReaderConfig{})
	w1 := ring.writer(laneOptions{capacity: 1 << 20})
	ring2 := newRing(b, false)
	r2 := ring2.reader(ReaderConfig{})
	w2 := ring2.writer(laneOptions{capacity: 1 << 20})
	p := make([]byte, 128)
	go func() {
		for {
			m, err := r1.Next(forever)
			if err != nil {
				return
			}
			_ = w2.Publish(forever, 1, m.Payload)
		}
	}()
	for b.Loop() {
		_ = w1.Publish(forever, 1, p)
		if _, err := r2.Next(forever); err != nil {
			b.Fatal(err)
		}
	}
}

// What reading alone costs: the lane was filled before.
func BenchmarkRead(b *testing.B) {
	ring := newRing(b, false)
	rd := ring.reader(ReaderConfig{})
	w := ring.writer(laneOptions{capacity: 4 << 20})
	p := make([]byte, 128)
	const n = 20000
	for b.Loop() {
		b.StopTimer()
		for range n {
			_ = w.Publish(forever, 1, p)
		}
		b.StartTimer()
		for range n {
			if _, err := rd.Next(forever); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/msg")
}
