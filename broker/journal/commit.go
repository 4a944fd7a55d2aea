package journal

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"time"
)

const (
	flushBytes   = 8 << 20  // unwritten bytes that are committed without anybody waiting
	unwrittenMax = 64 << 20 // unwritten bytes at which Admit waits
)

// cohort is everybody who waits for the same commit.
//
//	pending --a commit takes it--> flying --durable, Committed told--> done
type cohort struct {
	to      Number        // of the last frame, once flying
	waiters int           // while pending
	lead    chan struct{} // to one of them: no commit runs now, perform it
	done    chan struct{} // closed when published, or never after a failure
}

func newCohort() *cohort {
	return &cohort{lead: make(chan struct{}, 1), done: make(chan struct{})}
}

// Wait returns when frame n is durable and Committed was told. One commit runs at a time; who finds none
// running performs it, for everybody. ctx ends only the waiting, and not while performing a commit. After a failure
// it returns the error, for frames that were not durable before.
func (j *Journal) Wait(ctx context.Context, n Number) error {
	if Number(j.published.Load()) >= n {
		return nil
	}
	if err := j.wait(ctx, n); err != nil {
		return err
	}
	j.inlineWork()
	return nil
}

func (j *Journal) wait(ctx context.Context, n Number) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	for {
		var c *cohort
		for _, flying := range j.flights {
			if flying.to >= n {
				c = flying
				break
			}
		}
		switch {
		case Number(j.published.Load()) >= n:
			return nil
		case c != nil && (j.err == nil || c.to <= Number(j.durable.Load())):
			// Somebody writes it, or tells of it.
		case Number(j.durable.Load()) >= n:
			return nil
		case j.err != nil:
			return j.err
		case n > Number(j.appended.Load()):
			return fmt.Errorf("wait for frame %d: the last one appended is %d", n, j.appended.Load())
		case !j.committing:
			j.commitLocked()
			continue
		default:
			c = j.cohort
		}
		if err := j.waitForLocked(ctx, c); err != nil {
			return err
		}
	}
}

// waitForLocked gives up the lock until something happened to a cohort.
func (j *Journal) waitForLocked(ctx context.Context, c *cohort) error {
	failed := j.failed
	if j.err != nil {
		failed = nil // it is durable, and only not yet told
	}
	c.waiters++
	j.mu.Unlock()
	var err error
	select {
	case <-c.done:
	case <-c.lead:
	case <-failed:
	case <-ctx.Done():
		err = ctx.Err()
	}
	j.mu.Lock()
	c.waiters--
	return err
}

// commitLocked makes everything appended durable. It gives up the lock meanwhile. No commit must be running.
func (j *Journal) commitLocked() {
	// 1. Take what is pending; what is appended from now on is the next commit's.
	c, chunks := j.cohort, j.pending
	c.to = Number(j.appended.Load())
	j.cohort, j.pending, j.writing = newCohort(), j.writing[:0], chunks
	j.flights = append(j.flights, c)
	j.committing = true
	cut := durableEnd{j.active, j.active.end}
	promise, worth := j.lastPromise, j.lastWorth
	j.pendingSince = time.Time{}

	// 2. Write and sync it.
	j.mu.Unlock()
	written, err := j.write(chunks)
	j.mu.Lock()
	for slices.ContainsFunc(chunks, func(k *chunk) bool { return k.segment != cut.segment && k.segment.zeroing }) {
		j.changed.Wait() // its file will be closed
	}

	// 3. A failure is final: after a failed sync nobody knows what is on disk, and trying again lies.
	j.committing = false
	j.stats.BytesWritten += written
	if err != nil {
		j.failLocked(err)
		j.landLocked(c)
		return
	}

	// 4. It is durable. The next commit may begin.
	j.durable.Store(uint64(c.to))
	j.cut = cut
	j.promise, j.worth = promise, worth
	j.lastCommit = time.Now()
	j.stats.Commits++
	var ended []io.Closer
	for _, k := range chunks {
		s := k.segment
		j.unwritten -= int64(len(k.buf))
		if k.index {
			s.indexed = true
		} else {
			s.written = max(s.written, k.end())
		}
		if s != cut.segment && s.file != nil {
			ended = append(ended, s.file)
			s.file = nil
		}
	}
	j.writing = chunks[:0]
	j.recycleLocked(chunks)
	clear(chunks)
	if len(j.pending) > 0 && j.cohort.waiters > 0 {
		signal(j.cohort.lead)
	}
	j.armLocked()
	if s, _ := j.zeroDueLocked(); s != nil {
		signal(j.prepare)
	}
	j.mu.Unlock()

	// 5. Tell it, then wake who waits.
	for _, file := range ended {
		_ = file.Close() // what was written is durable
	}
	if j.o.Committed != nil {
		j.o.Committed(c.to)
	}
	raise(&j.published, uint64(c.to))
	close(c.done)
	j.mu.Lock()
	j.landLocked(c)
}

// landLocked ends a flight.
func (j *Journal) landLocked(c *cohort) {
	j.flights = slices.DeleteFunc(j.flights, func(flying *cohort) bool { return flying == c })
	j.changed.Broadcast()
}

// raise sets v to n unless it is more.
func raise(v *atomic.Uint64, n uint64) {
	for {
		old := v.Load()
		if old >= n || v.CompareAndSwap(old, n) {
			return
		}
	}
}

// write writes chunks and syncs their files. A segment is durable, its index included, before the next one
// is touched: so a header on disk says that everything before it is.
func (j *Journal) write(chunks []*chunk) (written int64, err error) {
	for i, c := range chunks {
		next := int64(-1)
		last := i+1 == len(chunks) || chunks[i+1].segment != c.segment
		if !last {
			next = chunks[i+1].offset
		}
		b := c.buf
		if !c.index && c.end() != next {
			// Whole pages need not be read before they are written. What is behind the end is of no use.
			b = b[:len(b)+int(-c.end()&(headerBytes-1))]
			clear(b[len(c.buf):])
		}
		j.claim(c.segment, c.offset+int64(len(b)))
		if err := writeFull(c.segment.file, b, c.offset); err != nil {
			return written, fmt.Errorf("write %d bytes to %s at offset %d: %w", len(b), c.segment.name(), c.offset, err)
		}
		written += int64(len(b))
		if last {
			if err := j.sync(c.segment); err != nil {
				return written, fmt.Errorf("sync %s: %w", c.segment.name(), err)
			}
		}
	}
	return written, nil
}

// writeFull takes a short write for an error.
func writeFull(w io.WriterAt, b []byte, offset int64) error {
	n, err := w.WriteAt(b, offset)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	return err
}

func (j *Journal) sync(s *segment) error {
	began := time.Now()
	err := s.file.Sync()
	took := time.Since(began)
	j.mu.Lock()
	defer j.mu.Unlock()
	j.stats.Syncs++
	j.stats.SyncTime += took
	j.stats.SyncTimeMax = max(j.stats.SyncTimeMax, took)
	j.stats.SyncTimes.count(took)
	return err
}

// Sync makes everything appended durable, and writes down that it is.
func (j *Journal) Sync() error {
	if err := j.Wait(context.Background(), j.Appended()); err != nil {
		return err
	}
	j.mu.Lock()
	n := j.Appended()
	if j.markDueLocked() {
		n = j.appendMarkLocked()
	}
	j.mu.Unlock()
	return j.Wait(context.Background(), n)
}

// markDueLocked tells whether no durable frame says yet that the last one worth it is durable.
func (j *Journal) markDueLocked() bool {
	return j.err == nil && !j.committing && len(j.pending) == 0 && j.worth > j.promise &&
		(j.fitsLocked(segmentShare(0, 0)) || len(j.spares) > 0) // never fail for the sake of a mark
}

func (j *Journal) appendMarkLocked() Number {
	n, _ := j.appendLocked(kindMark, nil, 0, nil)
	return n
}

// armLocked sees to it that the flusher looks again in time. Where it will do so anyway it is not woken:
// that would cost as much as a small commit itself.
func (j *Journal) armLocked() {
	if !j.armed {
		signal(j.flush)
	}
}

// flusher commits what nobody waits for, and writes marks.
func (j *Journal) flusher() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		var due <-chan time.Time
		j.mu.Lock()
		at, ok := j.flushDueLocked()
		if ok {
			timer.Reset(time.Until(at))
			due = timer.C
		}
		j.armed = ok
		j.mu.Unlock()
		select {
		case <-j.stop:
			return
		case <-j.flush:
		case <-due:
			j.flushNow()
		}
	}
}

func (j *Journal) flushDueLocked() (time.Time, bool) {
	switch {
	case j.err != nil:
	case len(j.pending) > 0 && j.unwritten > flushBytes:
		return j.pendingSince, true
	case len(j.pending) > 0:
		return j.pendingSince.Add(j.o.MarkDelay), true
	case j.markDueLocked():
		return j.lastCommit.Add(j.o.MarkDelay), true
	}
	return time.Time{}, false
}

// flushNow does what is due. Errors are for those who wait.
func (j *Journal) flushNow() {
	j.mu.Lock()
	n := j.Appended()
	if at, ok := j.flushDueLocked(); !ok || time.Until(at) > 0 {
		j.mu.Unlock()
		return
	}
	if j.markDueLocked() {
		n = j.appendMarkLocked()
	}
	j.mu.Unlock()
	_ = j.wait(context.Background(), n)
}
