package journal

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/ipcd/ipcd/internal/vfs"
)

// damagedExtension is added to the name of a file that is set aside, since its damage was accepted.
const damagedExtension = ".damaged"

// Open recovers the journal in a directory, or begins a new one, and calls replay with each of its frames in order.
// Frames that were never durable may be missing at the end. replay's error ends Open and is returned. A
// damaged journal is refused, unless Options.OnDamage and Accept accept it; until then no file is changed.
func Open(o Options, replay func(Entry) error) (*Journal, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	if err := o.FS.MkdirAll(o.Dir); err != nil {
		return nil, fmt.Errorf("make the journal's directory: %w", err)
	}
	r := &recovery{fs: o.FS, dir: o.Dir, onDamage: o.OnDamage}
	if err := r.run(replay); err != nil {
		return nil, err
	}
	if r.damaged && o.Accept != nil {
		if err := o.Accept(); err != nil {
			return nil, err
		}
	}
	j := newJournal(o)
	j.o.Committed, j.o.Failed = nil, nil // nobody has appended yet, and Open's errors are its own
	if err := j.begin(r); err != nil {
		j.closeFiles()
		return nil, err
	}
	j.o.Committed, j.o.Failed = o.Committed, o.Failed
	if o.Inline {
		j.work()
	} else {
		j.routines.Go(j.flusher)
		j.routines.Go(j.preparer)
	}
	return j, nil
}

func refuse(d Damage) error { return &DamageError{d} }

// complete fills in the defaults and says what is wrong with the rest.
func (o *Options) complete() error {
	if o.SegmentBytes == 0 {
		o.SegmentBytes = SegmentBytesMax
	}
	if o.Reserve == 0 {
		o.Reserve = reserveDefault
	}
	if o.MarkDelay == 0 {
		o.MarkDelay = markDelayDefault
	}
	if o.OnDamage == nil {
		o.OnDamage = refuse
	}
	switch {
	case o.FS == nil || o.Dir == "":
		return errors.New("journal options: FS and Dir are needed")
	case !validSegmentBytes(o.SegmentBytes):
		return fmt.Errorf("journal options: SegmentBytes is %d, allowed are multiples of %d from %d to %d", o.SegmentBytes, headerBytes, SegmentBytesMin, SegmentBytesMax)
	case o.Reserve < 0 || o.Reserve > reserveMax:
		return fmt.Errorf("journal options: Reserve is %d, allowed are 1 to %d", o.Reserve, reserveMax)
	case o.MaxDisk < 0 || o.MaxDisk > 0 && o.MaxDisk < int64(o.Reserve+2)*o.SegmentBytes:
		return fmt.Errorf("journal options: MaxDisk is %d bytes, with %d segments in reserve of %d bytes it must be 0 or at least %d",
			o.MaxDisk, o.Reserve, o.SegmentBytes, int64(o.Reserve+2)*o.SegmentBytes)
	case o.KeepFree < 0 || o.MarkDelay < 0:
		return errors.New("journal options: KeepFree and MarkDelay must not be negative")
	}
	return nil
}

func newJournal(o Options) *Journal {
	j := &Journal{
		o:        o,
		slots:    map[uint16]*segment{},
		used:     map[uint16]bool{},
		cohort:   newCohort(),
		holds:    map[uint64]int{},
		prepared: make(chan struct{}),
		failed:   make(chan struct{}),
		flush:    make(chan struct{}, 1),
		prepare:  make(chan struct{}, 1),
		stop:     make(chan struct{}),
	}
	j.changed = sync.NewCond(&j.mu)
	return j
}

// begin makes a journal that can be appended to of what was recovered.
func (j *Journal) begin(r *recovery) error {
	j.damaged = r.damaged
	j.run = 1
	if r.newest != nil {
		j.o.Identity = r.identity
		j.run = r.tail.run + 1
	}
	j.keys = makeKeys(j.o.Identity)
	if r.newest != nil {
		if err := j.resume(r); err != nil {
			return err
		}
	}
	// Only now that the end of the log is durable: it may say that what is not needed is not needed.
	if err := j.adoptUnused(r); err != nil {
		return err
	}

	// The first frame of a run makes those left over of earlier ones invalid: runs never fall. It says as well that all
	// that was recovered is durable.
	j.mu.Lock()
	fits := j.active != nil && j.fitsLocked(segmentShare(0, 0))
	j.mu.Unlock()
	if !fits && len(j.spares) == 0 {
		if j.addSpare(); j.full != nil {
			return fmt.Errorf("begin a segment: %w: %w", ErrFull, j.full)
		}
	}
	j.mu.Lock()
	if j.active == nil {
		j.rollLocked(1)
		for j.active.zeroed < min(zeroAhead, j.active.size) {
			j.zeroLocked()
			j.mu.Lock()
		}
	}
	n := j.appendMarkLocked()
	j.mu.Unlock()
	return j.wait(context.Background(), n)
}

// adoptUnused finds a use for the files that are not part of the log.
func (j *Journal) adoptUnused(r *recovery) error {
	fs := j.o.FS
	for _, name := range r.temps {
		if err := fs.Remove(j.path(name)); err != nil {
			return fmt.Errorf("remove a half-made segment: %w", err)
		}
	}
	for _, f := range r.bad {
		if r.damaged {
			// It may be what is missed.
			if err := j.setAside(f.name, r.names); err != nil {
				return err
			}
			continue
		}
		r.unused = append(r.unused, f)
	}
	for _, f := range r.unused {
		if f.size != j.o.SegmentBytes || len(j.spares) >= j.spareTarget() {
			if err := fs.Remove(j.path(f.name)); err != nil {
				return fmt.Errorf("remove a segment that is not needed: %w", err)
			}
			continue
		}
		file, err := fs.Open(j.path(f.name))
		if err != nil {
			return fmt.Errorf("open a spare segment: %w", err)
		}
		s := &segment{slot: f.slot, size: f.size, file: file, zeroed: f.size}
		if f.bad == "" && f.header.generation == 0 {
			s.zeroed = headerBytes
		}
		j.spares = append(j.spares, s)
		j.used[s.slot] = true
		j.diskBytes += s.size
	}
	// Other entries may be of a process that ended before it synced them.
	if err := fs.SyncDir(j.o.Dir); err != nil {
		return fmt.Errorf("sync the journal's directory: %w", err)
	}
	return nil
}

// setAside gives a file a name that is not a segment's.
func (j *Journal) setAside(name string, names map[string]bool) error {
	to := name + damagedExtension
	for i := 2; names[to]; i++ {
		to = fmt.Sprintf("%s%s%d", name, damagedExtension, i)
	}
	if err := j.o.FS.Rename(j.path(name), j.path(to)); err != nil {
		return fmt.Errorf("set a damaged segment aside: %w", err)
	}
	return nil
}

// resume goes on in the newest segment.
func (j *Journal) resume(r *recovery) error {
	for _, f := range r.live {
		s := &segment{slot: f.slot, size: f.header.segmentBytes, generation: f.header.generation, mask: j.keys.mask(f.header.generation),
			first: f.header.first, last: f.last, end: f.end, written: f.end, sealed: true, indexed: true, zeroed: f.header.segmentBytes}
		j.live = append(j.live, s)
		j.slots[s.slot], j.used[s.slot] = s, true
		j.diskBytes += s.size
	}
	s := j.live[len(j.live)-1]
	j.active = s
	j.oldest = j.live[0].generation
	s.run = r.tail.run
	if s.sealed = r.newest.sealed; !s.sealed {
		j.index = r.tail.index
	}
	for _, n := range []*atomic.Uint64{&j.appended, &j.durable, &j.published} {
		n.Store(uint64(r.tail.last))
	}
	file, err := j.o.FS.Open(j.path(s.name()))
	if err != nil {
		return fmt.Errorf("open the newest segment: %w", err)
	}
	s.file = file
	if err := j.rewriteTail(r, s); err != nil {
		return fmt.Errorf("write the end of %s again: %w", s.name(), err)
	}
	if r.damaged {
		// With an index the next Open need not look at the damage again.
		j.mu.Lock()
		j.sealLocked(r.tail.last)
		j.mu.Unlock()
	}
	return nil
}

// rewriteTail writes again what no frame says is durable. It may be of a process whose sync failed: then it
// can be read, but the kernel takes it for written and a sync alone would not write it.
func (j *Journal) rewriteTail(r *recovery, s *segment) error {
	if r.newest.size < s.size {
		if err := s.file.Allocate(s.size); err != nil {
			return err
		}
	}
	from := s.end
	index := newIndexReader(r.tail.index, s.first, s.size)
	for {
		e, ok := index.next()
		if !ok {
			break
		}
		if e.number > r.tail.promised {
			from = e.offset
			break
		}
	}
	parts := [][2]int64{{from, s.end}}
	if !r.newest.rescued {
		parts = append(parts, [2]int64{0, headerBytes})
	}
	if s.sealed {
		parts = append(parts, [2]int64{indexOffset(s.size, int64(len(r.tail.index))), s.size})
	}
	for _, p := range parts {
		if err := writeFull(s.file, r.newestData[p[0]:p[1]], p[0]); err != nil {
			return err
		}
	}
	return s.file.Sync()
}

// Close commits what is pending, writes down that it is durable, and waits for what is running. After a failure it
// returns that.
func (j *Journal) Close() error {
	var err error
	j.closing.Do(func() {
		err = j.Sync()
		j.mu.Lock()
		for len(j.flights) > 0 {
			j.changed.Wait()
		}
		if j.err == nil {
			j.err = ErrClosed
			close(j.failed)
		} else {
			err = j.err
		}
		close(j.stop)
		j.mu.Unlock()
		j.routines.Wait()
		j.closeFiles()
	})
	return err
}

func (j *Journal) closeFiles() {
	for _, list := range [][]*segment{j.live, j.spares} {
		for _, s := range list {
			closeFile(s.file)
		}
	}
}

// closeFile closes a file of which all is durable that was promised.
func closeFile(file vfs.File) {
	if file != nil {
		_ = file.Close()
	}
}
