package journal

import (
	"errors"
	"fmt"
)

var (
	// ErrFailed is wrapped by every error after a write or a sync failed. It is final: nothing more
	// becomes durable, and what was not durable then never is.
	ErrFailed = errors.New("the journal has failed")
	// ErrFull is wrapped by the errors that say that there is no room on disk.
	ErrFull = errors.New("the journal has no room")
	// ErrClosed answers calls after Close.
	ErrClosed = errors.New("the journal is closed")
	// ErrNewer is wrapped by the error of Open for files of a later format. They are left untouched.
	ErrNewer = errors.New("made by a newer ipcd")
	// ErrChecksum is wrapped by a PayloadError where the bytes are not those that were written.
	ErrChecksum = errors.New("checksum mismatch")
)

// Damage is a place in the journal where something is missing that was promised to be durable.
type Damage struct {
	File       string     // "" where a whole file is missing
	Generation Generation // 0 where not even that is known
	Offset     int64      // in bytes, from the start of the file
	After      Number     // the last good frame before it; 0: none
	Before     Number     // the first good frame after it, or up to which was promised; 0: not known
	Reason     string
}

// String says all of it.
func (d Damage) String() string {
	file := d.File
	if file == "" {
		file = "a missing file"
	}
	frames := fmt.Sprintf("the last good frame before is %d", d.After)
	if d.Before != 0 {
		frames += fmt.Sprintf(", the next to be expected after is %d", d.Before)
	}
	return fmt.Sprintf("%s (generation %d) at offset %d: %s; %s", file, d.Generation, d.Offset, d.Reason, frames)
}

// DamageError is the error of Open for a journal that is damaged, unless Options.OnDamage accepts it.
type DamageError struct{ Damage Damage }

func (e *DamageError) Error() string {
	return "the journal is damaged: " + e.Damage.String() + ": restore it from a backup, or accept what is lost"
}

// PayloadError says that one payload can not be read. Other errors of ReadPayloads concern the whole call.
type PayloadError struct {
	Position Position
	File     string
	Offset   int64 // in bytes
	Err      error // wraps ErrChecksum, or is the file system's
}

func (e *PayloadError) Error() string {
	return fmt.Sprintf("payload at offset %d of %s: %v", e.Offset, e.File, e.Err)
}

func (e *PayloadError) Unwrap() error { return e.Err }
