package shm

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Commands of membarrier(2), Linux 4.14.
const (
	membarrierPrivateExpedited         = 1 << 3
	membarrierRegisterPrivateExpedited = 1 << 4
)

var membarrierRegistered = sync.OnceValue(func() bool {
	_, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, membarrierRegisterPrivateExpedited, 0, 0)
	return errno == 0
})

// fenceAllThreads returns after every thread of the process has passed a full memory fence.
func fenceAllThreads() {
	if membarrierRegistered() {
		if _, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, membarrierPrivateExpedited, 0, 0); errno == 0 {
			return
		}
	}
	// A store buffer is long empty by then.
	time.Sleep(time.Millisecond)
}
