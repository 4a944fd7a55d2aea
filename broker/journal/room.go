package journal

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"
)

const (
	zeroChunk  = 1 << 20                // bytes
	zeroAhead  = 2 << 20                // bytes the active segment is zeroed ahead of what is appended
	retryDelay = 100 * time.Millisecond // between attempts to make a spare
)

var zeros [zeroChunk]byte

// spareTarget is how many spares are kept: the reserve, and one for everybody.
func (j *Journal) spareTarget() int { return j.o.Reserve + 1 }

// Admit is asked before something is decided that will append so many bytes (Frame.Len) and may as well be
// refused. It waits while the next segment is being prepared, and while too much is unwritten. It returns ErrFull,
// wrapped, if MaxDisk, KeepFree or the file system leave no room; with room it recovers by itself. What frees
// room does not ask: for that the reserve is kept. Nothing is set aside for who was admitted: those
// admitted at the same time may together take what they need from the reserve.
func (j *Journal) Admit(ctx context.Context, bytes int64) error {
	for {
		j.mu.Lock()
		switch {
		case j.err != nil:
			defer j.mu.Unlock()
			return j.err
		case j.unwritten > 0 && j.unwritten+bytes > unwrittenMax:
			n := j.Appended()
			j.mu.Unlock()
			if err := j.Wait(ctx, n); err != nil {
				return err
			}
			continue
		case j.roomLocked(bytes):
			j.mu.Unlock()
			return nil
		case j.full != nil && time.Since(j.fullAt) < retryDelay:
			defer j.mu.Unlock()
			return fmt.Errorf("%w: %w", ErrFull, j.full)
		}
		prepared := j.prepared
		signal(j.prepare)
		j.mu.Unlock()
		j.inlineWork()
		select {
		case <-prepared:
		case <-j.failed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Room tells whether Admit would let so many bytes in at once.
func (j *Journal) Room(bytes int64) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.err == nil && j.roomLocked(bytes)
}

// roomLocked tells whether who asks Admit may append so many bytes.
func (j *Journal) roomLocked(bytes int64) bool {
	if j.fitsLocked(bytes) {
		return len(j.spares) >= j.o.Reserve
	}
	return len(j.spares) > j.o.Reserve
}

func (j *Journal) whyFullLocked() error {
	if j.full != nil {
		return j.full
	}
	return errors.New("no segment is ready yet")
}

// preparer keeps spares ready, zeroed, and gives freed segments back.
func (j *Journal) preparer() {
	for {
		j.work()
		select {
		case <-j.stop:
			return
		case <-j.prepare:
		}
	}
}

// work does what there is to prepare.
func (j *Journal) work() {
	for j.workStep() {
		select {
		case <-j.stop:
			return
		default:
		}
	}
}

// inlineWork does the preparer's work where there is no goroutine for it.
func (j *Journal) inlineWork() {
	if j.o.Inline {
		j.work()
	}
}

// workStep does one piece of work, the most urgent first, and reports whether there was any.
func (j *Journal) workStep() bool {
	j.mu.Lock()
	if j.err != nil {
		j.mu.Unlock()
		return false
	}
	if f, ok := j.unheldLocked(); ok {
		recycle := len(j.spares) < j.spareTarget() && f.size == j.o.SegmentBytes
		j.mu.Unlock()
		j.takeBack(f, recycle)
		return true
	}
	if len(j.spares) < j.spareTarget() && (j.full == nil || time.Since(j.fullAt) >= retryDelay) {
		j.mu.Unlock()
		j.addSpare()
		return true
	}
	return j.zeroLocked()
}

// addSpare makes one, or notes why there can be none.
func (j *Journal) addSpare() {
	s, err := j.makeSpare()
	j.mu.Lock()
	defer j.mu.Unlock()
	j.notePreparedLocked(s, err)
}

func (j *Journal) notePreparedLocked(s *segment, err error) {
	j.full, j.fullAt = err, time.Now()
	if err == nil {
		j.spares = append(j.spares, s)
	}
	close(j.prepared)
	j.prepared = make(chan struct{})
	signal(j.flush) // a mark may have waited for room
}

// makeSpare makes a segment file. It gets its name when all its space is there, so that a shorter file is known to be
// damaged.
func (j *Journal) makeSpare() (*segment, error) {
	size := j.o.SegmentBytes
	j.mu.Lock()
	slot, ok := j.freeSlotLocked()
	disk := j.diskBytes
	if ok && (j.o.MaxDisk == 0 || disk+size <= j.o.MaxDisk) {
		j.used[slot] = true
		j.diskBytes += size
	}
	j.mu.Unlock()
	if !ok {
		return nil, errors.New("all 65536 segment files are in use")
	}
	if j.o.MaxDisk != 0 && disk+size > j.o.MaxDisk {
		return nil, fmt.Errorf("its files have %d bytes, allowed are %d: consume messages or raise the limit", disk, j.o.MaxDisk)
	}
	s, err := j.makeFile(slot)
	if err != nil {
		j.mu.Lock()
		delete(j.used, slot)
		j.diskBytes -= size
		j.mu.Unlock()
		return nil, fmt.Errorf("make a segment: %w", err)
	}
	return s, nil
}

func (j *Journal) freeSlotLocked() (uint16, bool) {
	for slot := range 1 << 16 {
		if !j.used[uint16(slot)] {
			return uint16(slot), true
		}
	}
	return 0, false
}

func (j *Journal) makeFile(slot uint16) (s *segment, err error) {
	size := j.o.SegmentBytes
	if j.o.KeepFree > 0 {
		free, _, err := j.o.FS.Free(j.o.Dir)
		if err != nil {
			return nil, err
		}
		if free-size < j.o.KeepFree {
			return nil, fmt.Errorf("the file system has %d bytes free, of which %d are to be kept: make room", free, j.o.KeepFree)
		}
	}
	name := j.path(fileName(slot))
	temp := name + spareExtension
	file, err := j.o.FS.Create(temp)
	if err != nil {
		return nil, err
	}
	at := temp
	defer func() {
		if err != nil {
			// What can not be removed is removed by the next Open.
			_ = file.Close()
			_ = j.o.FS.Remove(at)
		}
	}()
	if err = file.Allocate(size); err != nil {
		return nil, err
	}
	var b [headerBytes]byte
	h := segmentHeader{slot: slot, segmentBytes: size, identity: j.o.Identity}
	h.encode(b[:])
	if err = writeFull(file, b[:], 0); err != nil {
		return nil, err
	}
	if err = file.Sync(); err != nil {
		return nil, err
	}
	if err = j.o.FS.Rename(temp, name); err != nil {
		return nil, err
	}
	at = name
	if err = j.o.FS.SyncDir(j.o.Dir); err != nil {
		return nil, err
	}
	return &segment{slot: slot, size: size, file: file, zeroed: headerBytes}, nil
}

func (j *Journal) path(name string) string { return filepath.Join(j.o.Dir, name) }

// zeroDueLocked returns the segment of which more should be zeroed, or nil, and whether that is to be synced.
func (j *Journal) zeroDueLocked() (s *segment, sync bool) {
	if s := j.active; !s.sealed && s.zeroed < min(s.size, s.end+zeroAhead) {
		return s, false // its syncs are its commits'
	}
	if j.active.end >= j.active.size/2 && len(j.spares) > 0 && j.spares[0].zeroed < j.spares[0].size {
		return j.spares[0], true
	}
	return nil, false
}

// zeroLocked writes zeros to the next piece of a segment that never was written, since a sync into merely
// reserved space takes longer. It gives up the lock, and reports whether there was such a piece.
func (j *Journal) zeroLocked() bool {
	s, sync := j.zeroDueLocked()
	if s == nil {
		j.mu.Unlock()
		return false
	}
	from, file := s.zeroed, s.file
	n := min(zeroChunk, s.size-from)
	s.zeroing, s.syncing = true, sync
	j.mu.Unlock()
	err := writeFull(file, zeros[:n], from)
	if err == nil && sync {
		err = file.Sync()
	}
	j.mu.Lock()
	s.zeroing, s.syncing = false, false
	s.zeroed = max(s.zeroed, from+n)
	if err != nil {
		s.zeroed = s.size
		// A spare holds nothing yet. If it is bad, its first commit says so.
		if s.generation != 0 {
			j.failLocked(fmt.Errorf("write zeros to %s: %w", s.name(), err))
		}
	}
	j.changed.Broadcast()
	j.mu.Unlock()
	return true
}

// claim waits until a commit may write to a segment up to an offset, and keeps zeros away from there.
func (j *Journal) claim(s *segment, end int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for s.syncing || s.zeroing && end > s.zeroed {
		j.changed.Wait()
	}
	s.zeroed = max(s.zeroed, (end+headerBytes-1)&^(headerBytes-1))
}
