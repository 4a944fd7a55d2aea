package journal

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipcd/ipcd/internal/vfs"
)

// fill appends, as far as Admit lets it.
func fill(t *testing.T, j *Journal) (list []stored, err error) {
	t.Helper()
	for {
		if err := j.Admit(background, 5000); err != nil {
			return list, err
		}
		s := app(j, content{key: uint64(len(list)), sizes: []int{4000}})
		must(t, j.Wait(background, s.number))
		list = append(list, s)
	}
}

func TestAFullJournalRefusesUsesItsReserveAndRecovers(t *testing.T) {
	limits := map[string]func(o *Options, disk *vfs.Crash){
		"MaxDisk": func(o *Options, disk *vfs.Crash) { o.MaxDisk = 8 * o.SegmentBytes },
		"KeepFree": func(o *Options, disk *vfs.Crash) {
			disk.SetCapacity(10 * o.SegmentBytes)
			o.KeepFree = 2 * o.SegmentBytes
		},
		"the disk": func(o *Options, disk *vfs.Crash) { disk.SetCapacity(8*o.SegmentBytes + 8192) },
	}
	for name, limit := range limits {
		synctest.Test(t, func(t *testing.T) { // time passes between attempts
			disk := vfs.NewCrash(random(1))
			o := small(disk)
			limit(&o, disk)
			j, _ := mustOpen(t, o)
			list, err := fill(t, j)
			if !errors.Is(err, ErrFull) || errors.Is(err, ErrFailed) {
				t.Fatalf("%s: %v, want ErrFull", name, err)
			}
			if s := j.Stats(); !s.Full || s.Spares != o.Reserve || s.Segments != 6 || s.DiskBytes != 8*o.SegmentBytes {
				t.Errorf("%s: %+v, want 6 segments and %d in reserve", name, s, o.Reserve)
			}
			// Who frees room needs some.
			for range 20 {
				s := app(j, content{key: uint64(len(list)), sizes: []int{4000}})
				must(t, j.Wait(background, s.number))
				list = append(list, s)
			}
			time.Sleep(time.Second)
			if err := j.Admit(background, 5000); !errors.Is(err, ErrFull) {
				t.Errorf("%s: admitted with %v into the reserve", name, err)
			}
			oldest := j.Segments()[0]
			for range 4 {
				must(t, j.Free(j.Segments()[0].Generation))
			}
			if err := j.Admit(background, 5000); err != nil {
				t.Errorf("%s: %v, want that there is room again", name, err)
			}
			if s := j.Stats(); s.Full || s.DiskBytes > 8*o.SegmentBytes {
				t.Errorf("%s: %+v", name, s)
			}
			if j.Segments()[0].Generation != oldest.Generation+4 {
				t.Errorf("%s: oldest is %d", name, j.Segments()[0].Generation)
			}
			must(t, j.Close())
			j, found := mustOpen(t, o)
			if err := sameFrames(found, list[len(list)-len(found):]); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			must(t, j.Close())
		})
	}
}

func TestRoomThatComesBackIsNoticedWithoutARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewCrash(random(1))
		o := small(disk)
		o.Inline = false
		disk.SetCapacity(8 * o.SegmentBytes)
		j, _ := mustOpen(t, o)
		if _, err := fill(t, j); !errors.Is(err, ErrFull) || !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("%v, want ErrFull and why", err)
		}
		disk.SetCapacity(20 * o.SegmentBytes)
		if err := j.Admit(background, 5000); !errors.Is(err, ErrFull) {
			t.Errorf("Admit: %v, want that it is not tried more often than every 100 ms", err)
		}
		time.Sleep(retryDelay)
		must(t, j.Admit(background, 5000))
		must(t, j.Close())
	})
}

func TestTheJournalFailsWhenEvenTheReserveIsUsedUp(t *testing.T) {
	disk := vfs.NewCrash(random(1))
	o := small(disk)
	o.MaxDisk = 4 * o.SegmentBytes
	j, _ := mustOpen(t, o)
	var list []stored
	for j.Err() == nil {
		list = append(list, app(j, content{key: uint64(len(list)), sizes: []int{4000}}))
		if err := j.Wait(background, j.Appended()); err != nil && (!errors.Is(err, ErrFailed) || !errors.Is(err, ErrFull)) {
			t.Fatalf("Wait: %v", err)
		}
	}
	_ = j.Close()
	o.MaxDisk = 0
	j, found := mustOpen(t, o)
	if err := sameFrames(found, list[:len(list)-1]); err != nil {
		t.Error(err)
	}
	must(t, j.Close())
}

func TestAdmitWaitsForTheNextSegmentAndEndsWithItsContext(t *testing.T) {
	var c counting
	o := small(vfs.NewFault(vfs.NewCrash(random(1)), c.hook))
	o.Inline = false
	entered, release := make(chan struct{}, 100), make(chan struct{})
	c.judge = nil
	blocked := vfs.NewFault(o.FS, func(op vfs.Op) vfs.Verdict {
		if op.Kind == vfs.OpAllocate && !strings.Contains(op.Name, "0000") {
			entered <- struct{}{}
			<-release
		}
		return vfs.Pass()
	})
	o.FS = blocked
	j, _ := mustOpen(t, o)
	<-entered
	ctx, cancel := context.WithCancel(background)
	cancel()
	if err := j.Admit(ctx, 100); !errors.Is(err, context.Canceled) {
		t.Errorf("Admit: %v, want its context's error", err)
	}
	admitted := make(chan error)
	go func() { admitted <- j.Admit(background, 100) }()
	close(release)
	must(t, <-admitted)
	must(t, j.Close())
}

func TestFreedSegmentsAreNotOverwrittenWhileHeld(t *testing.T) {
	fs, all := made(t)
	j, _ := mustOpen(t, small(fs))
	var early []stored
	for _, s := range all {
		if s.number <= j.Segments()[0].LastNumber {
			early = append(early, s)
		}
	}
	release := j.Hold()
	must(t, j.Free(j.Segments()[0].Generation))
	more := func() {
		for range 60 {
			app(j, content{key: 1, sizes: []int{5000}})
			must(t, j.Wait(background, j.Appended()))
		}
	}
	more()
	must(t, readBack(j, early))
	later := j.Hold() // does not keep what was freed before
	release()
	release()
	more()
	var p *PayloadError
	if err := readBack(j, early); !errors.As(err, &p) || !errors.Is(err, ErrChecksum) {
		t.Errorf("read what was freed: %v, want a PayloadError", err)
	}
	later()
	must(t, j.Close())
}

func TestSurplusSegmentsAreRemoved(t *testing.T) {
	disk := vfs.NewCrash(random(1))
	o := small(disk)
	j, _ := mustOpen(t, o)
	for len(j.Segments()) < 12 {
		app(j, content{key: 1, sizes: []int{9000}})
		must(t, j.Wait(background, j.Appended()))
	}
	for len(j.Segments()) > 1 {
		must(t, j.Free(j.Segments()[0].Generation))
	}
	if n, s := len(files(t, disk)), j.Stats(); n != 1+o.Reserve+1 || s.DiskBytes != int64(n)*o.SegmentBytes {
		t.Errorf("%d files, %+v", n, s)
	}
	if err := j.Free(j.Generation()); err == nil || !strings.Contains(err.Error(), "still being written") {
		t.Errorf("freed the active segment: %v", err)
	}
	must(t, j.Close())
}

func TestSegmentsOfAnotherSizeStayReadable(t *testing.T) {
	fs, all := made(t)
	o := small(fs)
	o.SegmentBytes *= 4
	j, found := mustOpen(t, o)
	must(t, sameFrames(found, all))
	for len(j.Segments()) < 6 {
		all = append(all, app(j, content{key: uint64(len(all)), sizes: []int{60_000}}))
		must(t, j.Wait(background, j.Appended()))
	}
	must(t, j.Free(j.Segments()[0].Generation))
	must(t, readBack(j, all[len(all)-10:]))
	must(t, j.Close())
	j, found = mustOpen(t, small(fs)) // and back
	must(t, sameFrames(found, all[len(all)-len(found):]))
	must(t, readBack(j, found))
	must(t, j.Close())
}

// Every operation fails once: that may be told, and what was acknowledged stays.
func TestEveryFailingOperationIsToldOrHarmless(t *testing.T) {
	for _, permanent := range []bool{false, true} {
		for seed := range uint64(3) {
			for at := int64(1); ; at++ {
				disk := vfs.NewCrash(random(seed))
				fault := vfs.NewFault(disk, vfs.FailNth(at, syscall.EIO, permanent))
				h := &history{rng: random(seed)}
				err := h.open(small(fault))
				for i := 0; err == nil && i < 80; i++ {
					err = h.step()
				}
				if h.j != nil {
					_ = h.j.Close()
				}
				if err != nil && !errors.Is(err, syscall.EIO) && !isDamage(err) {
					t.Fatalf("seed %d, operation %d: %v", seed, at, err)
				}
				if err := h.open(small(disk.Crash(random(uint64(at))))); err != nil {
					t.Fatalf("seed %d, operation %d, permanent %v: opened again: %v", seed, at, permanent, err)
				}
				must(t, h.j.Close())
				if fault.Ops() < at {
					break
				}
			}
		}
	}
}
