//go:build linux

package ringbench

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipcd/ipcd/internal/shm"
)

// rig is two processes, left and right, with a ring in each direction and what the baselines need.
type rig struct {
	left, right *child
}

// rigOptions is what both processes are told.
type rigOptions struct {
	Capacity     uint64 // bytes of each ring
	PayloadBytes int
	Lossless     bool
	Pinned       bool   // each process has one processor to itself, so that nobody spins
	Attach       string // the socket of a daemon that has the rings /left and /right; empty: no daemon

	Right bool // set for the right process
}

// Descriptors that the children inherit, in this order from 3 on.
const (
	fileBare     = iota // of the baselines: two words at 0 and 128, and the bare ring
	fileLeft            // the ring that the left process publishes in: a lane, a consumer's pages, a members page
	fileRight    = fileLeft + 3
	fileQueues   = fileRight + 3 // kernel queues, one in each direction
	fileCount    = fileQueues + 2
	bareRingFrom = 4096
)

// newRig starts two processes.
func newRig(b testing.TB, o rigOptions) *rig {
	b.Helper()
	files := make([]*os.File, 0, fileCount)
	defer func() {
		for _, f := range files {
			_ = f.Close()
		}
	}()
	create := func(size int64) {
		f, err := shm.CreateMemory("ringbench", size)
		if err != nil {
			b.Fatal(err)
		}
		files = append(files, f)
	}
	create(bareRingFrom + shm.LaneSize(o.Capacity))
	for range 2 {
		create(shm.LaneSize(o.Capacity))
		create(shm.ConsumerSize)
		create(shm.MembersSize)
	}
	for i := range 2 {
		files = append(files, kernelQueue(b, fmt.Sprintf("ringbench.%d.%d", os.Getpid(), i)))
	}
	start := func(right bool, cpu int) *child {
		o.Right = right
		text, err := json.Marshal(o)
		if err != nil {
			b.Fatal(err)
		}
		if !o.Pinned {
			cpu = -1
		}
		return startChild(b, string(text), cpu, files)
	}
	return &rig{left: start(false, 0), right: start(true, 1)}
}

// kernelQueue makes a POSIX message queue that only who inherits it can open.
func kernelQueue(b testing.TB, name string) *os.File {
	b.Helper()
	fd, err := openKernelQueue(name)
	if err != nil {
		b.Fatal(err)
	}
	return os.NewFile(uintptr(fd), name)
}

// stream runs a job on the left that the right one receives from, and returns the time from the start of the one to the end of the other.
func (r *rig) stream(send, receive string, n int) time.Duration {
	r.right.begin(receive, n)
	r.left.begin(send, n)
	began := r.left.end()[0]
	return time.Duration(r.right.end()[0] - began)
}

// roundTrip runs a job that sends on the left and one that answers on the right, and returns the time of a round trip.
func (r *rig) roundTrip(ask, answer string, n int) float64 {
	r.right.begin(answer, n)
	r.left.begin(ask, n)
	nanos := r.left.end()[0]
	r.right.end()
	return float64(nanos) / float64(n)
}

// newJobs maps what a child inherited, and returns what it can do.
func newJobs(role string) (map[string]job, error) {
	if role == roleTraced {
		return tracedJobs()
	}
	var o rigOptions
	if err := json.Unmarshal([]byte(role), &o); err != nil {
		return nil, err
	}
	m, err := shm.Map(inherited(fileBare), bareRingFrom+shm.LaneSize(o.Capacity), true)
	if err != nil {
		return nil, err
	}
	if err := m.Populate(); err != nil {
		return nil, err
	}
	jobs := map[string]job{}
	(&bare{memory: m.Bytes(), o: o}).add(jobs)
	if o.Attach != "" {
		return jobs, attachEnd(o, jobs)
	}
	return jobs, directEnd(o, jobs)
}

func inherited(i int) *os.File { return os.NewFile(uintptr(3+i), "inherited") }

// monotonic is a time that processes share.
func monotonic() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic(err)
	}
	return t.Nano()
}

// cpuNanos is the CPU time of this process, its own and the kernel's on its behalf.
func cpuNanos() int64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

// resting measures the CPU time of n milliseconds in which nothing happens.
func resting(n int, ready func(), rest func(ctx context.Context) error) ([]int64, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(n)*time.Millisecond)
	defer cancel()
	ready()
	began := cpuNanos()
	if err := rest(ctx); ctx.Err() == nil {
		return nil, fmt.Errorf("it ended too early: %w", err)
	}
	return []int64{cpuNanos() - began}, nil
}

// paces are those of producers that do not publish as fast as they can: nanoseconds from one message to the next.
var paces = []int64{2_000, 20_000, 200_000}

// addPaced adds jobs that publish at each pace and return how many system calls woke somebody, and one that does nothing.
func addPaced(jobs map[string]job, publish func() error, wakes func() int64) {
	for _, pace := range paces {
		jobs[fmt.Sprint("publish every ", pace)] = func(n int, ready func()) ([]int64, error) {
			before := wakes()
			ready()
			for at := monotonic(); n > 0; n-- {
				if err := publish(); err != nil {
					return nil, err
				}
				for at += pace; monotonic() < at; {
				}
			}
			return []int64{wakes() - before}, nil
		}
	}
	jobs["rest"] = func(n int, ready func()) ([]int64, error) {
		return resting(n, ready, func(ctx context.Context) error {
			<-ctx.Done()
			return nil
		})
	}
}
