package ring

import (
	"fmt"
	"os"
	"sync"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/ipcd/ipcd/internal/shm"
)

// memory is a member's memory as the daemon holds it.
type memory struct {
	size     int64
	writable *os.File    // only to ask whether a writer is left
	readOnly *os.File    // what the others get; nil before it is sealed
	looking  *shm.Memory // mapped read-only; nil before it is sealed
	charge   *charge

	keeping sync.Mutex // guards what follows, also while the store is told of it
	kept    string     // its name in the store; "": it is not there
	givenUp bool       // it is not to be stored any more
}

// newMemory makes memory that begins with a header.
func newMemory(name string, size int64, header []byte, c *charge) (*memory, error) {
	f, err := shm.CreateMemory(name, size)
	if err != nil {
		return nil, err
	}
	m := &memory{size: size, writable: f, charge: c}
	if err := m.writeHeader(header); err != nil {
		f.Close()
		return nil, err
	}
	return m, nil
}

func (m *memory) writeHeader(header []byte) error {
	if _, err := m.writable.WriteAt(header, 0); err != nil {
		return fmt.Errorf("write the header of shared memory: %w", err)
	}
	return nil
}

// seal lets nobody write it any more but who has it mapped, and makes it readable for others.
func (m *memory) seal() error {
	if err := shm.CloseToWriters(m.writable, m.size); err != nil {
		return err
	}
	return m.open()
}

// open makes sealed memory readable for the daemon and, by readOnly, for others.
func (m *memory) open() error {
	readOnly, err := shm.Reopen(m.writable, os.O_RDONLY)
	if err != nil {
		return err
	}
	// Mapped from a read-only descriptor it does not count as a writable mapping.
	looking, err := shm.Map(readOnly, m.size, false)
	if err != nil {
		readOnly.Close()
		return err
	}
	m.readOnly, m.looking = readOnly, looking
	return nil
}

// reopen opens memory that was handed in and has been verified. If it fails the charge is released.
func reopen(file *os.File, size int64, c *charge) (*memory, error) {
	writable, err := shm.Reopen(file, os.O_RDWR) // it is the daemon's user's
	if err != nil {
		c.release()
		return nil, err
	}
	m := &memory{size: size, writable: writable, charge: c}
	if err := m.open(); err != nil {
		m.close()
		return nil, err
	}
	return m, nil
}

// close lets go of it without asking for writers.
func (m *memory) close() {
	m.looking.Release()
	if m.readOnly != nil {
		m.readOnly.Close()
	}
	m.writable.Close()
	m.charge.release()
}

// dispose lets go of memory that nobody is to use any more. It stays charged while a writable mapping of it lives
// anywhere: watch looks again each second. No lock may be held: the kernel looks at every page.
func (r *Rings) dispose(all ...*memory) {
	for _, m := range all {
		if m == nil {
			continue
		}
		r.giveUp(m)
		m.charge.left()
		m.looking.Release()
		m.looking = nil
		if m.readOnly != nil {
			m.readOnly.Close()
			m.readOnly = nil
		}
		if r.written(m) {
			r.lingerMu.Lock()
			r.lingering = append(r.lingering, m)
			r.lingerMu.Unlock()
			continue
		}
		m.close()
	}
}

// written reports whether somebody can still write it. Where the kernel does not say (a member may have sealed the
// seals) nobody is kept paying for it. Asking seals it, so that after Close nobody asks.
func (r *Rings) written(m *memory) bool {
	select {
	case <-r.quit:
		return false
	default:
	}
	yes, err := shm.HasWriter(m.writable)
	if err != nil {
		r.log.Warn("whether shared memory is still written cannot be known: it is not charged any more", zap.Int64("bytes", m.size), zap.Error(err))
		return false
	}
	return yes
}

// disposeLingering looks again at memory that was still written.
func (r *Rings) disposeLingering() {
	r.lingerMu.Lock()
	all := r.lingering
	r.lingering = nil
	r.lingerMu.Unlock()
	r.dispose(all...)
}

// duplicate returns another descriptor of the same open file, which is the caller's to close.
func duplicate(f *os.File) (*os.File, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var fd int
	var callErr error
	// Under Control the descriptor cannot be closed meanwhile.
	err = raw.Control(func(old uintptr) { fd, callErr = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 3) })
	if err == nil {
		err = callErr
	}
	if err != nil {
		return nil, fmt.Errorf("duplicate a descriptor of shared memory: %w", err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// closeAll closes files, of which some may be nil or closed already.
func closeAll(files ...*os.File) {
	for _, f := range files {
		if f != nil {
			_ = f.Close()
		}
	}
}
