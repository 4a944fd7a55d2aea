package shm

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// See futex(2), and Documentation/userspace-api/futex2.rst in the kernel for futex_waitv.
const (
	sysFutexWaitv    = 449
	futexWake        = 1
	futexPrivateFlag = 128
	futex2SizeU32    = 2
	futex2Private    = 128
	clockMonotonic   = 1
)

// waiter is struct futex_waitv.
type waiter struct {
	value    uint64
	address  uint64
	flags    uint32
	reserved uint32
}

// sharedWaiter waits for a word of shared memory to differ from value.
func sharedWaiter(word *atomic.Uint32, value uint32) waiter {
	return waiter{value: uint64(value), address: uint64(uintptr(unsafe.Pointer(word))), flags: futex2SizeU32}
}

// privateWaiter waits for a word of this process.
func privateWaiter(word *atomic.Uint32, value uint32) waiter {
	w := sharedWaiter(word, value)
	w.flags |= futex2Private
	return w
}

// sleep sleeps until a word is woken, differs from its value, or the deadline (monotonic nanoseconds) passes. It may
// return early for no reason. The words must stay reachable meanwhile.
func sleep(words []waiter, deadline int64) (timedOut bool) {
	limit := unix.NsecToTimespec(deadline)
	_, _, errno := unix.Syscall6(sysFutexWaitv, uintptr(unsafe.Pointer(unsafe.SliceData(words))), uintptr(len(words)), 0,
		uintptr(unsafe.Pointer(&limit)), clockMonotonic, 0)
	switch errno {
	case unix.ETIMEDOUT:
		return true
	case unix.ENOSYS, unix.EPERM: // before Linux 5.16, or a filter of system calls: look again each millisecond
		time.Sleep(time.Millisecond)
	}
	return false
}

// SleepsOnFutexes reports whether this kernel has futex_waitv(2), Linux 5.16. Without it waiting members look again each
// millisecond.
var SleepsOnFutexes = sync.OnceValue(func() bool {
	var word atomic.Uint32
	words := []waiter{privateWaiter(&word, 1)} // differs, so that it returns at once
	_, _, errno := unix.Syscall6(sysFutexWaitv, uintptr(unsafe.Pointer(&words[0])), 1, 0, 0, clockMonotonic, 0)
	return errno == unix.EAGAIN
})

// wakeShared wakes all who sleep on a word of shared memory.
func wakeShared(word *atomic.Uint32) {
	_, _, _ = unix.RawSyscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(word)), futexWake, math.MaxInt32, 0, 0, 0)
}

// wakePrivate wakes all who sleep on a word of this process.
func wakePrivate(word *atomic.Uint32) {
	_, _, _ = unix.RawSyscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(word)), futexWake|futexPrivateFlag, math.MaxInt32, 0, 0, 0)
}

// monotonicBase is what CLOCK_MONOTONIC showed when Go's own monotonic clock, which is the same, was at started. So
// deadlines for the kernel cost no system call.
var (
	started       = time.Now()
	monotonicBase = func() int64 {
		var ts unix.Timespec
		if err := unix.ClockGettime(clockMonotonic, &ts); err != nil {
			panic("shm: no monotonic clock: " + err.Error())
		}
		return ts.Nano() - int64(time.Since(started))
	}()
)

// monotonic is the present in nanoseconds of CLOCK_MONOTONIC.
func monotonic() int64 { return monotonicBase + int64(time.Since(started)) }
