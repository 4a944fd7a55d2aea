//go:build linux

package ring

import (
	"context"
	"testing"
)

// BenchmarkMessage is 100 messages published and read by one goroutine, so that nobody waits: by the
// package, and by what lies beneath it.
func BenchmarkMessage(b *testing.B) {
	f := newFake(b, nil)
	p, err := NewProducer(b.Context(), "/ring", ProducerOptions{Attach: f.path})
	if err != nil {
		b.Fatal(err)
	}
	defer p.Close()
	c, err := NewConsumer(b.Context(), "/ring", ConsumerOptions{Attach: f.path})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	payload := make([]byte, 128)
	ctx := context.Background()
	b.Run("ring", func(b *testing.B) {
		for b.Loop() {
			for range 100 {
				_ = p.Publish(1, payload)
			}
			for range 100 {
				_, _ = c.Next(ctx)
			}
		}
	})
	b.Run("shm", func(b *testing.B) {
		for b.Loop() {
			for range 100 {
				_ = p.writer.Publish(forever, 1, payload)
			}
			for range 100 {
				_, _ = c.reader.Next(ctx)
			}
		}
	})
}
