//go:build !race

package shm

import (
	"sync/atomic"
	"unsafe"
)

// storeRelease is a store that earlier loads and stores stay before: any store is, on this processor. An atomic store
// of Go is a full fence besides.
func storeRelease(w *atomic.Uint64, v uint64) { *(*uint64)(unsafe.Pointer(w)) = v }
