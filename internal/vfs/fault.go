package vfs

import (
	"io"
	"slices"
	"sync/atomic"
)

// The kinds of operations. Fault and Crash count the same ones, so that as long
// as Fault lets all pass an index means the same operation to both. Size and
// Close are not counted: they do not reach the disk.
const (
	OpMkdir    = "mkdir"
	OpReadDir  = "readdir"
	OpOpen     = "open" // Open and OpenRead
	OpCreate   = "create"
	OpRename   = "rename"
	OpRemove   = "remove"
	OpSyncDir  = "syncdir"
	OpFree     = "free"
	OpRead     = "read"
	OpWrite    = "write"
	OpSync     = "sync"
	OpAllocate = "allocate"
	OpTruncate = "truncate"
)

// Op is an operation that is about to be done.
type Op struct {
	Index  int64  // counts from 1
	Kind   string // one of the Op constants
	Name   string // the file or directory; for a rename the old name
	Offset int64  // bytes; for reads and writes
	Len    int64  // bytes to read or write, or the size to allocate or truncate to
}

// Verdict says what becomes of an operation. The zero Verdict lets it pass.
type Verdict struct {
	err   error
	short int
	skip  bool
}

// Pass lets an operation happen.
func Pass() Verdict { return Verdict{} }

// Fail makes an operation fail with err, without effect. A failed sync of a
// file in Crash leaves its data as Linux does: see Crash.
func Fail(err error) Verdict { return Verdict{err: err} }

// ShortWrite makes a write fail with err, or io.ErrShortWrite if that is nil,
// after its first n bytes. Other operations fail without effect.
func ShortWrite(n int, err error) Verdict {
	if err == nil {
		err = io.ErrShortWrite
	}
	return Verdict{err: err, short: n}
}

// Skip makes a sync or syncdir succeed without effect, as a disk that lies
// does. Other operations pass.
func Skip() Verdict { return Verdict{skip: true} }

// FailNth makes the n-th operation fail with err, and if permanent also all
// later ones. If kinds are given, only operations of these count and fail.
// Operations count from 1.
func FailNth(n int64, err error, permanent bool, kinds ...string) func(Op) Verdict {
	var seen atomic.Int64
	return func(op Op) Verdict {
		if len(kinds) > 0 && !slices.Contains(kinds, op.Kind) {
			return Pass()
		}
		if i := seen.Add(1); i == n || permanent && i > n {
			return Fail(err)
		}
		return Pass()
	}
}

// Fault wraps a file system and makes operations fail as its hook says.
type Fault struct {
	inner FS
	hook  func(Op) Verdict
	ops   atomic.Int64
}

var _ FS = (*Fault)(nil)

// NewFault wraps inner. The hook is asked before every operation and must be
// safe for concurrent use; without one, operations are only counted.
func NewFault(inner FS, hook func(Op) Verdict) *Fault {
	return &Fault{inner: inner, hook: hook}
}

// Ops returns how many operations there were.
func (f *Fault) Ops() int64 { return f.ops.Load() }

// ask numbers an operation and returns the hook's verdict.
func (f *Fault) ask(op Op) Verdict {
	op.Index = f.ops.Add(1)
	if f.hook == nil {
		return Pass()
	}
	return f.hook(op)
}

// MkdirAll implements FS.
func (f *Fault) MkdirAll(dir string) error {
	if v := f.ask(Op{Kind: OpMkdir, Name: dir}); v.err != nil {
		return v.err
	}
	return f.inner.MkdirAll(dir)
}

// ReadDir implements FS.
func (f *Fault) ReadDir(dir string) ([]string, error) {
	if v := f.ask(Op{Kind: OpReadDir, Name: dir}); v.err != nil {
		return nil, v.err
	}
	return f.inner.ReadDir(dir)
}

// Open implements FS.
func (f *Fault) Open(name string) (File, error) { return f.open(OpOpen, name, f.inner.Open) }

// OpenRead implements FS.
func (f *Fault) OpenRead(name string) (File, error) { return f.open(OpOpen, name, f.inner.OpenRead) }

// Create implements FS.
func (f *Fault) Create(name string) (File, error) { return f.open(OpCreate, name, f.inner.Create) }

func (f *Fault) open(kind, name string, open func(string) (File, error)) (File, error) {
	if v := f.ask(Op{Kind: kind, Name: name}); v.err != nil {
		return nil, v.err
	}
	file, err := open(name)
	if err != nil {
		return nil, err
	}
	return &faultFile{File: file, fault: f, name: name}, nil
}

// Rename implements FS.
func (f *Fault) Rename(from, to string) error {
	if v := f.ask(Op{Kind: OpRename, Name: from}); v.err != nil {
		return v.err
	}
	return f.inner.Rename(from, to)
}

// Remove implements FS.
func (f *Fault) Remove(name string) error {
	if v := f.ask(Op{Kind: OpRemove, Name: name}); v.err != nil {
		return v.err
	}
	return f.inner.Remove(name)
}

// SyncDir implements FS.
func (f *Fault) SyncDir(dir string) error {
	v := f.ask(Op{Kind: OpSyncDir, Name: dir})
	if v.err != nil || v.skip {
		return v.err
	}
	return f.inner.SyncDir(dir)
}

// Free implements FS.
func (f *Fault) Free(dir string) (free, total int64, err error) {
	if v := f.ask(Op{Kind: OpFree, Name: dir}); v.err != nil {
		return 0, 0, v.err
	}
	return f.inner.Free(dir)
}

// faultFile is a file of Fault. Size and Close are the inner file's.
type faultFile struct {
	File
	fault *Fault
	name  string
}

// ReadAt implements File.
func (f *faultFile) ReadAt(p []byte, off int64) (int, error) {
	if v := f.fault.ask(Op{Kind: OpRead, Name: f.name, Offset: off, Len: int64(len(p))}); v.err != nil {
		return 0, v.err
	}
	return f.File.ReadAt(p, off)
}

// WriteAt implements File.
func (f *faultFile) WriteAt(p []byte, off int64) (int, error) {
	v := f.fault.ask(Op{Kind: OpWrite, Name: f.name, Offset: off, Len: int64(len(p))})
	if v.err == nil {
		return f.File.WriteAt(p, off)
	}
	short := max(0, min(v.short, len(p)))
	if short == 0 {
		return 0, v.err
	}
	n, err := f.File.WriteAt(p[:short], off)
	if err != nil {
		return n, err
	}
	return n, v.err
}

// Sync implements File.
func (f *faultFile) Sync() error {
	v := f.fault.ask(Op{Kind: OpSync, Name: f.name})
	if v.err != nil {
		if file, ok := f.File.(interface{ failSync() }); ok {
			file.failSync()
		}
		return v.err
	}
	if v.skip {
		return nil
	}
	return f.File.Sync()
}

// Allocate implements File.
func (f *faultFile) Allocate(size int64) error {
	if v := f.fault.ask(Op{Kind: OpAllocate, Name: f.name, Len: size}); v.err != nil {
		return v.err
	}
	return f.File.Allocate(size)
}

// Truncate implements File.
func (f *faultFile) Truncate(size int64) error {
	if v := f.fault.ask(Op{Kind: OpTruncate, Name: f.name, Len: size}); v.err != nil {
		return v.err
	}
	return f.File.Truncate(size)
}
