package journal

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipcd/ipcd/internal/vfs"
)

// counting counts operations by kind and lets a test decide on each.
type counting struct {
	mu    sync.Mutex
	seen  map[string]int
	judge func(op vfs.Op) vfs.Verdict
}

func (c *counting) hook(op vfs.Op) vfs.Verdict {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seen == nil {
		c.seen = map[string]int{}
	}
	c.seen[op.Kind]++
	if c.judge == nil {
		return vfs.Pass()
	}
	return c.judge(op)
}

func (c *counting) count(kind string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen[kind]
}

func (c *counting) set(judge func(op vfs.Op) vfs.Verdict) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.judge, c.seen = judge, nil
}

// A write or sync that fails is the last one: nobody is told of anything durable from then on.
func TestAFailedWriteOrSyncIsFinal(t *testing.T) {
	for name, verdict := range map[string]struct {
		kind string
		v    vfs.Verdict
	}{
		"sync":        {vfs.OpSync, vfs.Fail(syscall.EIO)},
		"write":       {vfs.OpWrite, vfs.Fail(syscall.EIO)},
		"short write": {vfs.OpWrite, vfs.ShortWrite(100, nil)},
		"full disk":   {vfs.OpWrite, vfs.Fail(syscall.ENOSPC)},
	} {
		t.Run(name, func(t *testing.T) {
			disk := vfs.NewCrash(random(1))
			var c counting
			o := small(vfs.NewFault(disk, c.hook))
			var told []error
			var committed atomic.Uint64
			failed := make(chan struct{})
			o.Failed = func(err error) { told = append(told, err); close(failed) }
			o.Committed = func(n Number) { committed.Store(uint64(n)) }
			j, _ := mustOpen(t, o)
			good := app(j, content{key: 1, sizes: []int{100}})
			must(t, j.Wait(background, good.number))
			c.set(func(op vfs.Op) vfs.Verdict {
				if op.Kind == verdict.kind {
					return verdict.v
				}
				return vfs.Pass()
			})
			bad := app(j, content{key: 2, sizes: []int{1000}})
			if err := j.Wait(background, bad.number); !errors.Is(err, ErrFailed) {
				t.Fatalf("Wait: %v, want ErrFailed", err)
			}
			syncs, writes := c.count(vfs.OpSync), c.count(vfs.OpWrite)
			// The disk is well again, but nobody knows what it holds.
			c.judge = nil
			after := app(j, content{key: 3, sizes: []int{10}})
			if after.number != bad.number+1 || after.at[0] != 0 {
				t.Errorf("appended as frame %d at %v, want %d, nowhere", after.number, after.at, bad.number+1)
			}
			if err := j.Wait(background, after.number); !errors.Is(err, ErrFailed) {
				t.Errorf("Wait for a later frame: %v", err)
			}
			must(t, j.Wait(background, good.number))
			must(t, readBack(j, []stored{good, bad}))
			if err := j.Admit(background, 1); !errors.Is(err, ErrFailed) {
				t.Errorf("Admit: %v", err)
			}
			if err := j.Sync(); !errors.Is(err, ErrFailed) {
				t.Errorf("Sync: %v", err)
			}
			if err := j.Err(); !errors.Is(err, ErrFailed) {
				t.Errorf("Err: %v", err)
			}
			if err := j.Close(); !errors.Is(err, ErrFailed) {
				t.Errorf("Close: %v", err)
			}
			<-failed
			if len(told) != 1 || j.Durable() >= bad.number || committed.Load() >= uint64(bad.number) {
				t.Errorf("told %v, durable %d, committed %d", told, j.Durable(), committed.Load())
			}
			if c.count(vfs.OpSync) != syncs || c.count(vfs.OpWrite) != writes {
				t.Error("something was written or synced after the failure")
			}
		})
	}
}

// What a sync failed on can be read after a restart, though it is not on disk. Recovery writes it again.
func TestWhatAFailedSyncLeftIsWrittenAgain(t *testing.T) {
	for seed := range uint64(30) {
		disk := vfs.NewCrash(random(seed))
		var c counting
		j, _ := mustOpen(t, small(vfs.NewFault(disk, c.hook)))
		good := app(j, content{key: 1, sizes: []int{2000}})
		must(t, j.Wait(background, good.number))
		c.set(vfs.FailNth(1, syscall.EIO, true, vfs.OpSync))
		bad := app(j, content{key: 2, sizes: []int{2000}})
		if err := j.Wait(background, bad.number); !errors.Is(err, ErrFailed) {
			t.Fatal(err)
		}
		_ = j.Close()
		j, found := mustOpen(t, small(disk))
		after := app(j, content{key: 3})
		must(t, j.Wait(background, after.number))
		found = append(found, after)
		disk = disk.CrashWith(vfs.AllLost, random(seed))
		j, again := mustOpen(t, small(disk))
		if err := sameFrames(again, found); err != nil {
			t.Fatalf("seed %d: after the power cut: %v", seed, err)
		}
		must(t, readBack(j, again))
		must(t, j.Close())
	}
}

// Everybody who waits shares a sync with whoever came meanwhile.
func TestOneSyncServesAllWhoWait(t *testing.T) {
	var c counting
	disk := vfs.NewCrash(random(1))
	o := small(vfs.NewFault(disk, c.hook))
	o.Inline = false
	o.MarkDelay = time.Hour
	j, _ := mustOpen(t, o)
	must(t, j.Admit(background, 1)) // the spares are there
	entered, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	c.set(func(op vfs.Op) vfs.Verdict {
		if op.Kind == vfs.OpSync && strings.Contains(op.Name, "0000") { // not of a spare that is being made
			once.Do(func() { close(entered); <-release })
		}
		return vfs.Pass()
	})
	first := app(j, content{key: 1})
	var all sync.WaitGroup
	all.Go(func() {
		if err := j.Wait(background, first.number); err != nil {
			t.Error(err)
		}
	})
	<-entered
	const waiters = 50
	var ready sync.WaitGroup
	ready.Add(waiters)
	for i := range waiters {
		s := app(j, content{key: uint64(i)})
		all.Go(func() {
			ready.Done()
			if err := j.Wait(background, s.number); err != nil {
				t.Error(err)
			}
		})
	}
	ready.Wait()
	close(release)
	all.Wait()
	if n := j.Stats().Commits; n > 3 { // of Open, of the first, of the others
		t.Errorf("%d commits, want 3", n)
	}
	must(t, j.Close())
}

func TestWaitEndsWithItsContextAndTheFrameStillBecomesDurable(t *testing.T) {
	var c counting
	disk := vfs.NewCrash(random(1))
	o := small(vfs.NewFault(disk, c.hook))
	o.Inline = false
	o.MarkDelay = time.Hour
	j, _ := mustOpen(t, o)
	must(t, j.Admit(background, 1))
	entered, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	c.set(func(op vfs.Op) vfs.Verdict {
		if op.Kind == vfs.OpSync && strings.Contains(op.Name, "0000") { // not of a spare that is being made
			once.Do(func() { close(entered); <-release })
		}
		return vfs.Pass()
	})
	s := app(j, content{key: 1})
	led := make(chan error)
	go func() { led <- j.Wait(background, s.number) }()
	<-entered
	ctx, cancel := context.WithCancel(background)
	cancel()
	if err := j.Wait(ctx, s.number); !errors.Is(err, context.Canceled) {
		t.Errorf("Wait: %v, want its context's error", err)
	}
	close(release)
	must(t, <-led)
	must(t, j.Wait(ctx, s.number)) // it is durable: there is nothing to wait for
	must(t, j.Close())
}

func TestCommittedIsToldBeforeItsWaitersWake(t *testing.T) {
	o := small(vfs.NewCrash(random(1)))
	o.Inline = false
	var told atomic.Uint64
	o.Committed = func(n Number) { raise(&told, uint64(n)) }
	j, _ := mustOpen(t, o)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for i := range 200 {
				if err := j.Admit(background, 100); err != nil {
					t.Error(err)
					return
				}
				s := app(j, content{key: uint64(i)})
				if err := j.Wait(background, s.number); err != nil {
					t.Error(err)
				}
				if Number(told.Load()) < s.number || j.Durable() < s.number {
					t.Errorf("frame %d waited for, committed is told up to %d", s.number, told.Load())
				}
			}
		})
	}
	all.Wait()
	must(t, j.Close())
}

// What is read from memory is not written over when that memory is used again.
func TestPendingPayloadsStayWholeWhileTheyAreRead(t *testing.T) {
	j, _ := mustOpen(t, small(vfs.NewCrash(random(1))))
	must(t, j.Wait(background, app(j, content{key: 1, sizes: []int{10}}).number)) // memory to use again
	s := app(j, content{key: 2, sizes: []int{100, 200}})
	calls := 0
	must(t, j.ReadPayloads(s.at, func(i int, payload []byte) {
		if calls++; calls == 1 {
			for range 10 {
				must(t, j.Wait(background, app(j, content{key: 3, sizes: []int{3000}}).number))
			}
		}
		if string(payload) != string(s.payload(i)) {
			t.Errorf("payload %d is not what was appended", i)
		}
	}))
	must(t, j.Close())
}

// Zeros are written ahead of the log, never over it.
func TestACommitWaitsForTheZerosInItsWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		armed, from := false, int64(-1)
		blocked, release := make(chan struct{}), make(chan struct{})
		o := small(vfs.NewFault(vfs.NewCrash(random(1)), func(op vfs.Op) vfs.Verdict {
			mu.Lock()
			zeros := armed && op.Kind == vfs.OpWrite && op.Len == zeroChunk && from < 0
			if zeros {
				from = op.Offset
			} else if from >= 0 && op.Kind == vfs.OpWrite && op.Offset+op.Len > from {
				t.Errorf("%d bytes were written at offset %d while zeros were on their way to %d", op.Len, op.Offset, from)
			}
			mu.Unlock()
			if zeros {
				close(blocked)
				<-release
				mu.Lock()
				from, armed = -1, false
				mu.Unlock()
			}
			return vfs.Pass()
		}))
		o.Inline = false
		o.SegmentBytes = 8 << 20
		j, _ := mustOpen(t, o)
		time.Sleep(time.Second) // until all is prepared
		mu.Lock()
		armed = true
		mu.Unlock()
		a := app(j, content{key: 1, sizes: []int{3 << 19}})
		must(t, j.Wait(background, a.number))
		<-blocked
		b := app(j, content{key: 2, sizes: []int{2 << 20}})
		done := make(chan error, 1)
		go func() { done <- j.Wait(background, b.number) }()
		synctest.Wait()
		close(release)
		must(t, <-done)
		must(t, readBack(j, []stored{a, b}))
		must(t, j.Close())
	})
}

// Appends, waits, reads and frees at the same time, checked by recovery.
func TestConcurrentUseLosesNothing(t *testing.T) {
	const seed = 6
	disk := vfs.NewCrash(random(seed))
	o := small(disk)
	o.Inline = false
	o.MarkDelay = time.Millisecond
	j, _ := mustOpen(t, o)
	const writers, frames = 8, 150
	lists := make([][]stored, writers)
	var all sync.WaitGroup
	for w := range writers {
		rng := random(seed + uint64(w))
		all.Go(func() {
			for i := range frames {
				if err := j.Admit(background, 3000); err != nil {
					t.Error(err)
					return
				}
				s := app(j, makeContent(rng, uint64(w*frames+i), 1000))
				lists[w] = append(lists[w], s)
				if rng.IntN(3) > 0 {
					if err := j.Wait(background, s.number); err != nil {
						t.Error(err)
					}
				}
				release := j.Hold()
				if err := readBack(j, lists[w][len(lists[w])-1:]); err != nil {
					t.Errorf("seed %d: %v", seed, err)
				}
				release()
			}
		})
	}
	stop := make(chan struct{})
	var freed Number
	var freer sync.WaitGroup
	freer.Go(func() {
		for {
			s := j.Segments()
			if len(s) <= 4 {
				select {
				case <-stop:
					return
				default:
					runtime.Gosched()
				}
				continue
			}
			var seen []stored
			if err := j.ReadSegment(s[0].Generation, collect(&seen)); err != nil {
				t.Error(err)
				return
			}
			if err := j.Free(s[0].Generation); err != nil {
				t.Error(err)
				return
			}
			freed = s[0].LastNumber
		}
	})
	all.Wait()
	close(stop)
	freer.Wait()
	must(t, j.Close())
	if freed == 0 {
		t.Error("nothing was freed")
	}
	j, found := mustOpen(t, small(disk))
	byNumber := map[Number]stored{}
	for _, s := range found {
		byNumber[s.number] = s
	}
	for _, list := range lists {
		for _, s := range list {
			got, ok := byNumber[s.number]
			if s.number > freed && (!ok || sameFrames([]stored{got}, []stored{s}) != nil) {
				t.Fatalf("seed %d: frame %d is %+v, want %+v", seed, s.number, got, s)
			}
		}
	}
	must(t, readBack(j, found))
	must(t, j.Close())
}

// In a bubble of synctest time passes when everybody sleeps.
func TestWhatNobodyWaitsForIsCommittedAndMarked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewCrash(random(1))
		o := small(disk)
		o.Inline = false
		j, _ := mustOpen(t, o)
		time.Sleep(time.Second)
		before := j.Stats()
		s := app(j, content{key: 1})
		time.Sleep(o.MarkDelay + 10*time.Millisecond)
		if j.Durable() < s.number {
			t.Error("it is not durable")
		}
		time.Sleep(time.Second)
		if n := j.Stats().Commits - before.Commits; n != 2 || j.Appended() != s.number+1 {
			t.Errorf("%d commits, %d frames: want the frame and a mark, and no mark for the mark", n, j.Appended())
		}
		disk.CrashWith(vfs.AllLost, random(2))
		_ = j.Close()
	})
}

// The mark is what tells rot from a torn tail.
func TestRotOfTheLastFrameIsNoticedOnceItIsMarked(t *testing.T) {
	for _, marked := range []bool{false, true} {
		disk := vfs.NewCrash(random(1))
		j, _ := mustOpen(t, small(disk))
		s := app(j, content{key: 1, sizes: []int{10}})
		must(t, j.Wait(background, s.number))
		if marked {
			must(t, j.Sync())
		}
		disk = disk.CrashWith(vfs.AllLost, random(1))
		overwrite(t, disk, "0000.seg", []byte("rotten"), s.at[0].offset()-20)
		_, _, err := look(disk, refuse)
		if isDamage(err) != marked {
			t.Errorf("marked %v: %v", marked, err)
		}
	}
}

func TestACleanCloseLeavesNothingToMark(t *testing.T) {
	disk := vfs.NewCrash(random(1))
	j, _ := mustOpen(t, small(disk))
	s := app(j, content{key: 1, sizes: []int{10}})
	must(t, j.Close())
	if err := j.Wait(background, s.number); err != nil {
		t.Errorf("Wait for what Close committed: %v", err)
	}
	late := app(j, content{key: 2})
	if err := j.Wait(background, late.number); !errors.Is(err, ErrClosed) {
		t.Errorf("Wait after Close: %v", err)
	}
	overwrite(t, disk, "0000.seg", []byte("rotten"), s.at[0].offset()-20)
	if _, _, err := look(disk, refuse); !isDamage(err) {
		t.Errorf("%v, want damage", err)
	}
}
