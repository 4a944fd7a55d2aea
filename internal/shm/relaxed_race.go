//go:build race

package shm

import "sync/atomic"

// storeRelaxed is a store that the race detector understands.
func storeRelaxed(w *atomic.Uint64, v uint64) { w.Store(v) }
