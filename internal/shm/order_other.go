//go:build !amd64

package shm

import "sync/atomic"

// fenceAfterOldest keeps the stores of a frame behind the store of oldest: the load waits for that store, and
// what follows a load with acquire order waits for the load.
func fenceAfterOldest(oldest *atomic.Uint64) { oldest.Load() }

// fenceBeforeRecheck keeps the loads of a copy before the load of oldest that follows: a store with release order
// waits for earlier loads, and a later sequentially consistent load for the store. The word is private.
func fenceBeforeRecheck(private *atomic.Uint64) { private.Store(0) }
