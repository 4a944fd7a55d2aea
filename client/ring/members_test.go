//go:build linux

package ring

import (
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"testing"
)

// TestMembersComeAndGoUnderLoad has producers and consumers join and leave while others work: these lose
// nothing, and those that come get whole lanes.
func TestMembersComeAndGoUnderLoad(t *testing.T) {
	f := newFake(t, func(f *fake) { f.lossless = true })
	seed := rand.Uint64()
	defer func() {
		if t.Failed() {
			t.Logf("seed %d", seed)
		}
	}()
	p := f.producer(t)
	c := f.consumer(t, ConsumerOptions{Lossless: true})
	const comers, rounds, each = 2, 25, 50
	ctx := deadline(t)
	stop := make(chan struct{})
	var others, steady sync.WaitGroup
	for i := range comers {
		random := rand.New(rand.NewPCG(seed, uint64(i)))
		others.Go(func() {
			for range rounds {
				come, err := NewProducer(ctx, "/ring", ProducerOptions{Attach: f.path})
				if err != nil {
					t.Error(err)
					return
				}
				for n := range each {
					if err := come.PublishContext(ctx, 2, number(n)); err != nil {
						t.Error(err)
					}
				}
				come.Close()
			}
		})
		others.Go(func() {
			for range rounds {
				come, err := NewConsumer(ctx, "/ring", ConsumerOptions{Attach: f.path, From: Oldest, Lossless: random.IntN(2) == 0})
				if err != nil {
					t.Error(err)
					return
				}
				for range random.IntN(200) {
					if _, err := come.Next(ctx); err != nil {
						t.Error(err)
					}
				}
				come.Close()
			}
		})
	}
	steady.Go(func() {
		n := 0
		for ; ; n++ {
			select {
			case <-stop:
				n = doneMark
			default:
			}
			if err := p.PublishContext(ctx, 1, number(n)); err != nil {
				t.Errorf("message %d: %v", n, err)
				return
			}
			if n == doneMark {
				return
			}
		}
	})
	next := map[uint64]int{} // by lane
	steady.Go(func() {
		for {
			m, err := c.Next(ctx)
			if err != nil {
				t.Error(err)
				return
			}
			n := int(binary.LittleEndian.Uint64(m.Payload))
			if n == doneMark {
				return
			}
			if n != next[m.Lane] || m.Lost != 0 {
				t.Errorf("lane %d: message %d with %d lost, want %d", m.Lane, n, m.Lost, next[m.Lane])
				return
			}
			next[m.Lane]++
		}
	})
	others.Wait()
	close(stop)
	steady.Wait()
	// What the comers published came before doneMark, or comes now.
	for whole := 0; whole < comers*rounds; {
		whole = 0
		for lane, n := range next {
			if lane != p.Lane() && n == each {
				whole++
			}
		}
		if whole == comers*rounds || t.Failed() {
			break
		}
		m, err := c.Next(ctx)
		if err != nil {
			t.Fatalf("%d of %d lanes are whole: %v", whole, comers*rounds, err)
		}
		next[m.Lane]++
	}
}
