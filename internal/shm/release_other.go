//go:build race || !amd64

package shm

import "sync/atomic"

// storeRelease is a store that earlier loads and stores stay before.
func storeRelease(w *atomic.Uint64, v uint64) { w.Store(v) }
