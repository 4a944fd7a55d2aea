package ring

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// guarded calls f, which reads memory that others write. A fault there (sealed memory faults only when the machine's
// memory fails) becomes an error, and not the daemon's end. It is for what runs in this goroutine.
func guarded(f func()) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		switch v := recover().(type) {
		case nil:
		case interface {
			runtime.Error
			Addr() uintptr // only a fault at an address has one
		}:
			err = fmt.Errorf("a member's memory cannot be read: %w", v)
		default:
			panic(v)
		}
	}()
	f()
	return nil
}
