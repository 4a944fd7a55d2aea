package journal

import (
	"time"

	"github.com/ipcd/ipcd/internal/vfs"
)

const (
	// SegmentBytesMin and SegmentBytesMax bound Options.SegmentBytes. Positions reach no further.
	SegmentBytesMin = 64 << 10
	SegmentBytesMax = 32 << 20

	reserveDefault   = 3
	reserveMax       = 1024
	markDelayDefault = 5 * time.Millisecond
)

// Options say where a journal lies and how it behaves. FS, Dir and, for a new journal, Identity are needed.
type Options struct {
	FS  vfs.FS
	Dir string // made if missing

	SegmentBytes int64 // of new segments: a multiple of 4096 from 64 KiB to 32 MiB; 0: 32 MiB
	MaxDisk      int64 // bytes of all segment files; 0: no bound
	KeepFree     int64 // bytes of the file system to leave free
	Reserve      int   // segments kept ready that what asks Admit may not use; 0: 3

	// Identity tells a new journal from others; one that exists has its own. Checksums are keyed by it, so
	// that a payload can not pass for a frame: it must be random, and is not for clients to see.
	Identity [16]byte

	// During Open: OnDamage is told of each damage; nil goes on without what is lost, an error ends Open. A nil func
	// refuses. Then, once all is replayed and before any file is changed, Accept has the last word; nil func: accept. What
	// was accepted is mostly not reported again.
	OnDamage func(Damage) error
	Accept   func() error

	Committed func(Number)  // after each commit, before its waiters wake, without locks; may be called concurrently and out of order
	Failed    func(error)   // once, when a write or a sync failed, without locks; must not call Close
	MarkDelay time.Duration // from a commit until its promise is written down, and until what nobody waits for is committed; 0: 5 ms

	// Inline runs no goroutines: what they would do happens inside Open, Wait, Admit, Free and Sync, so that a
	// simulation with one goroutine repeats exactly. Only Sync then writes marks.
	Inline bool
}

// Entry is a frame as recovery finds it.
type Entry struct {
	Number     Number
	Generation Generation
	Meta       []byte // valid during the call
	Payloads   Place
}

// SegmentInfo describes a segment.
type SegmentInfo struct {
	Generation Generation
	Bytes      int64 // used
	Sealed     bool
	File       string
	LastNumber Number // of its last frame; of the one before it where it has none
}
