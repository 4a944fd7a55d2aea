//go:build linux

package ringbench

import (
	"context"
	"encoding/binary"
	"fmt"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ipcd/ipcd/internal/shm"
)

// CPU time of a publish in overwrite mode with consumers attached, which do not run: 64 that keep up do not fit on any machine of
// ours. awake: they seem to read. asleep: they sleep, and were woken already.
func BenchmarkProducerCPU(b *testing.B) {
	counts := []int{0, 1, 8, 64}
	for _, asleep := range []bool{false, true} {
		b.Run(map[bool]string{false: "awake", true: "asleep"}[asleep], func(b *testing.B) {
			const n = 100_000
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			writers := make([]*shm.Writer, len(counts))
			for i, c := range counts {
				w, err := newWriter(c, asleep)
				if err != nil {
					b.Fatal(err)
				}
				b.Cleanup(w.Close)
				writers[i] = w
			}
			payload, ctx := make([]byte, payloadBytes), context.Background()
			m := measured{}
			repeat(b, m, func() {
				for i, w := range writers {
					began := threadNanos()
					for range n {
						if err := w.Publish(ctx, 1, payload); err != nil {
							b.Fatal(err)
						}
					}
					m.add(fmt.Sprintf("consumers%d", counts[i]), float64(threadNanos()-began)/n)
				}
			})
			m.report(b, "ns", false)
			for i, w := range writers {
				if s := w.Stats(); s.Wakes > 1 || asleep && counts[i] > 0 && s.Elided == 0 {
					b.Errorf("with %d consumers: %d wakes, %d elided", counts[i], s.Wakes, s.Elided)
				}
			}
		})
	}
}

// newWriter is a writer that has mapped so many consumers.
func newWriter(consumers int, asleep bool) (*shm.Writer, error) {
	members, err := newMemory(shm.MembersSize, false, nil)
	if err != nil {
		return nil, err
	}
	m := shm.Members{Epoch: 2, Page: shm.NewPage(members)}
	for slot := range uint32(consumers) {
		pages, err := newMemory(shm.ConsumerSize, false, func(b []byte) {
			if asleep {
				binary.LittleEndian.PutUint32(b[128*(1+slot%16):], 1)
			}
		})
		if err != nil {
			return nil, err
		}
		m.Consumers = append(m.Consumers, shm.ConsumerPeer{ID: uint64(slot) + 1, Epoch: 1, Slot: slot, Memory: pages})
	}
	lane, err := newMemory(shm.LaneSize(capacity), true, nil)
	if err != nil {
		return nil, err
	}
	return shm.NewWriter(shm.WriterConfig{Memory: lane, RingID: 1, LaneID: 100, Epoch: 2,
		Geometry: shm.Geometry{Capacity: capacity, MaxFrame: capacity / 4}}, m), nil
}

// newMemory makes memory, changes it and maps it as asked.
func newMemory(size int64, writable bool, change func(b []byte)) (*shm.Memory, error) {
	f, err := shm.CreateMemory("ringbench", size)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	m, err := mapped(f, size, true)
	if err != nil {
		return nil, err
	}
	if change != nil {
		change(m.Bytes())
	}
	if writable {
		return m, nil
	}
	m.Release()
	return mapped(f, size, false)
}

// threadNanos is the CPU time of this thread.
func threadNanos() int64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &u); err != nil {
		panic(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}
