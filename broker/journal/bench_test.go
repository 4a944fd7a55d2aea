package journal

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/ipcd/ipcd/internal/vfs"
)

// discard is a file system whose writes go nowhere, to measure what is done before them.
func discard(b *testing.B) vfs.FS {
	return vfs.NewFault(vfs.OS{}, func(op vfs.Op) vfs.Verdict {
		if op.Kind == vfs.OpSync || op.Kind == vfs.OpSyncDir {
			return vfs.Skip()
		}
		return vfs.Pass()
	})
}

func openBench(b *testing.B, fs vfs.FS) *Journal {
	b.Helper()
	j, err := Open(Options{FS: fs, Dir: b.TempDir(), Identity: [16]byte{1}}, func(Entry) error { return nil })
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = j.Close() })
	return j
}

// freeOld keeps the journal short.
func freeOld(b *testing.B, j *Journal) {
	for {
		s := j.Segments()
		if len(s) < 3 {
			return
		}
		if err := j.Free(s[0].Generation); err != nil {
			b.Error(err)
			return
		}
	}
}

func batch(messages, size int) *Frame {
	f := &Frame{Meta: make([]byte, 60)}
	for range messages {
		f.AddPayload(nil, make([]byte, size))
	}
	return f
}

func BenchmarkAddPayload(b *testing.B) {
	var f Frame
	body := make([]byte, 128)
	b.ReportAllocs()
	for i := range b.N {
		if i%64 == 0 {
			f.Reset()
		}
		f.AddPayload(nil, body)
	}
}

// BenchmarkAppend is the work under the lock, for 64 messages of 128 bytes.
func BenchmarkAppend(b *testing.B) {
	j := openBench(b, discard(b))
	f := batch(64, 128)
	b.ReportAllocs()
	b.SetBytes(f.Len())
	for i := range b.N {
		n, _ := j.Append(f)
		if i%256 == 255 {
			b.StopTimer()
			if err := j.Wait(background, n); err != nil {
				b.Fatal(err)
			}
			if err := j.Admit(background, f.Len()*256); err != nil {
				b.Fatal(err)
			}
			freeOld(b, j)
			b.StartTimer()
		}
	}
}

// BenchmarkCommit is Append and Wait with a real fdatasync, by so many goroutines.
func BenchmarkCommit(b *testing.B) {
	for _, callers := range []int{2, 16, 256} {
		for _, messages := range []int{1, 64} {
			b.Run(fmt.Sprintf("callers=%d/messages=%d", callers, messages), func(b *testing.B) {
				j := openBench(b, vfs.OS{})
				b.SetParallelism(callers / 2)
				var failed atomic.Bool
				before := j.Stats().Syncs
				b.RunParallel(func(pb *testing.PB) {
					f := batch(messages, 128)
					for pb.Next() {
						if err := j.Admit(background, f.Len()); err != nil {
							failed.Store(true)
							return
						}
						n, _ := j.Append(f)
						if err := j.Wait(background, n); err != nil {
							failed.Store(true)
							return
						}
						if n%4096 == 0 {
							freeOld(b, j)
						}
					}
				})
				if failed.Load() {
					b.Fatal(j.Err())
				}
				b.ReportMetric(float64(j.Stats().Syncs-before)/float64(b.N), "syncs/op")
			})
		}
	}
}
