//go:build !race

package shm

import (
	"sync/atomic"
	"unsafe"
)

// storeRelaxed stores a word that others may look at, but that orders nothing. An atomic store of Go is a full
// fence, which costs more than all else in a publish.
func storeRelaxed(w *atomic.Uint64, v uint64) { *(*uint64)(unsafe.Pointer(w)) = v }
