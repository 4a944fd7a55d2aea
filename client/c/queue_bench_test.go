//go:build linux

package c_test

import (
	"fmt"
	"testing"

	"github.com/ipcd/ipcd/client"
)

// BenchmarkSend compares the C client with the Go client, one after the other at one daemon: an operation is one message.
func BenchmarkSend(b *testing.B) {
	d := startDaemon(b)
	c := driveWith(b, program(b, "testdata/queue.c", "-D_GNU_SOURCE", "ipcd.c", "-lnghttp2"), d.socket)
	for _, durability := range []client.Durability{client.DurabilityMemory, client.DurabilityJournal} {
		name := fmt.Sprintf("/%v", durability)
		q := d.queue(name, client.QueueSettings{Durability: durability, MaxMessages: 1000, Overflow: client.OverflowDropOldest})
		for _, batch := range []int{1, 64} {
			b.Run(fmt.Sprintf("%v/batch=%d/C", durability, batch), func(b *testing.B) {
				if r := c.do("repeat %s size=128 count=%d times=%d", name, batch, (b.N+batch-1)/batch); r.n != 0 {
					b.Fatal(r)
				}
			})
			b.Run(fmt.Sprintf("%v/batch=%d/Go", durability, batch), func(b *testing.B) {
				messages := make([]client.Message, batch)
				for i := range messages {
					messages[i].Body = make([]byte, 128)
				}
				for sent := 0; sent < b.N; sent += batch {
					if _, err := q.Send(b.Context(), messages...); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
