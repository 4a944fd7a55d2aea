package journal

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"sync"
)

// freed is a segment that nobody needs, except who held it before.
type freed struct {
	*segment
	epoch uint64
}

// Hold keeps the segments freed from now on from being overwritten, until release. Whoever collects positions and
// then reads them holds meanwhile.
func (j *Journal) Hold() (release func()) {
	j.mu.Lock()
	defer j.mu.Unlock()
	epoch := j.epoch
	j.holds[epoch]++
	return sync.OnceFunc(func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		if j.holds[epoch]--; j.holds[epoch] == 0 {
			delete(j.holds, epoch)
		}
		if len(j.limbo) > 0 {
			signal(j.prepare)
		}
	})
}

// unheldLocked takes out a freed segment that nobody holds.
func (j *Journal) unheldLocked() (freed, bool) {
	if len(j.limbo) == 0 {
		return freed{}, false
	}
	f := j.limbo[0]
	for epoch := range j.holds {
		if epoch <= f.epoch {
			return freed{}, false
		}
	}
	j.limbo = j.limbo[1:]
	delete(j.slots, f.slot) // positions in it lead nowhere from now on
	return f, true
}

// Free gives up the oldest segment, which must be sealed. Nothing in it may be needed any more: what was,
// must have been appended again. When it returns, the file is used again as soon as nobody holds it.
func (j *Journal) Free(g Generation) error {
	j.freeing.Lock()
	defer j.freeing.Unlock()
	j.mu.Lock()
	switch {
	case j.err != nil:
		defer j.mu.Unlock()
		return j.err
	case j.live[0].generation != g:
		defer j.mu.Unlock()
		return fmt.Errorf("free segment %d: the oldest is %d, only that can be freed", g, j.live[0].generation)
	case !j.live[0].sealed:
		defer j.mu.Unlock()
		return fmt.Errorf("free segment %d: it is still being written", g)
	case !j.fitsLocked(segmentShare(8, 0)) && len(j.spares) == 0:
		defer j.mu.Unlock()
		return fmt.Errorf("free segment %d: %w: %w", g, ErrFull, j.whyFullLocked())
	}
	j.oldest = j.live[1].generation
	var meta [8]byte
	le.PutUint64(meta[:], uint64(j.oldest))
	n, _ := j.appendLocked(kindHead, meta[:], crc32.Checksum(meta[:], castagnoli), nil)
	j.mu.Unlock()
	if err := j.Wait(context.Background(), n); err != nil {
		return err
	}

	// Only now: before, a crash would need the segment.
	j.mu.Lock()
	s := j.live[0]
	j.live = append(j.live[:0], j.live[1:]...)
	j.limbo = append(j.limbo, freed{s, j.epoch})
	j.epoch++
	signal(j.prepare)
	j.mu.Unlock()
	j.inlineWork()
	return nil
}

// takeBack makes a freed segment a spare, or removes its file.
func (j *Journal) takeBack(f freed, recycle bool) {
	if recycle {
		if file, err := j.o.FS.Open(j.path(f.name())); err == nil {
			j.mu.Lock()
			defer j.mu.Unlock()
			j.notePreparedLocked(&segment{slot: f.slot, size: f.size, file: file, zeroed: f.size}, nil)
			return
		}
	}
	err := errors.Join(j.o.FS.Remove(j.path(f.name())), j.o.FS.SyncDir(j.o.Dir))
	j.mu.Lock()
	defer j.mu.Unlock()
	if err != nil {
		return // the next Open finds the file, and that it is not needed
	}
	delete(j.used, f.slot)
	j.diskBytes -= f.size
}
