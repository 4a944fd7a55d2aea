package shm

import "sync/atomic"

// Loads are not reordered with earlier loads, nor stores with earlier stores, and the compiler keeps atomic
// operations and the copies around them in order: nothing more is needed.

func fenceAfterOldest(*atomic.Uint64)   {}
func fenceBeforeRecheck(*atomic.Uint64) {}
