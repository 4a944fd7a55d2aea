//go:build linux

package ringbench

import (
	"fmt"
	"math"
	"runtime"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// bare is the baselines: what a ring is made of, without the ring.
type bare struct {
	memory   []byte
	o        rigOptions
	position uint64 // in the bare ring, in bytes since it began
	limit    uint64 // up to which the consumer is known to have read
	sequence uint64
	word     uint32
}

func (x *bare) add(jobs map[string]job) {
	ask, answer := fileQueues, fileQueues+1
	if x.o.Right {
		ask, answer = answer, ask
	}
	jobs["bare write"] = x.write
	jobs["bare read"] = x.read
	jobs["copy"] = x.copy
	jobs["words ask"] = func(n int, ready func()) ([]int64, error) { return x.words(n, ready, 0, 128, spinUntil) }
	jobs["words answer"] = func(n int, ready func()) ([]int64, error) { return x.answer(n, ready, 0, 128, spinUntil) }
	jobs["futex ask"] = func(n int, ready func()) ([]int64, error) { return x.words(n, ready, 256, 384, sleepUntil) }
	jobs["futex answer"] = func(n int, ready func()) ([]int64, error) { return x.answer(n, ready, 256, 384, sleepUntil) }
	jobs["mq ask"] = func(n int, ready func()) ([]int64, error) { return x.queue(n, ready, 3+ask, 3+answer, true) }
	jobs["mq answer"] = func(n int, ready func()) ([]int64, error) { return x.queue(n, ready, 3+ask, 3+answer, false) }
}

func (x *bare) at(offset uint64) *atomic.Uint64 {
	return (*atomic.Uint64)(unsafe.Pointer(&x.memory[offset]))
}

// The bare ring: frames of 32 bytes of header and the payload. The header's first word is a stamp, the position behind the frame, and is
// stored last; the consumer waits for it. It tells how far it has read at 1024, every 64th of the capacity and in the end.
const (
	bareCursor = 1024
	bareHeader = 32
)

func (x *bare) frame() uint64 { return bareHeader + (uint64(x.o.PayloadBytes)+31)&^31 }

func (x *bare) write(n int, ready func()) ([]int64, error) {
	data := x.memory[bareRingFrom : bareRingFrom+x.o.Capacity]
	size, mask, cursor := x.frame(), x.o.Capacity-1, x.at(bareCursor)
	payload := make([]byte, x.o.PayloadBytes)
	ready()
	began := monotonic()
	for range n {
		if tail := x.o.Capacity - x.position&mask; tail < size {
			x.position += tail
		}
		for x.position+size > x.limit+x.o.Capacity {
			x.limit = cursor.Load()
		}
		at := x.position & mask
		x.sequence++
		*(*uint64)(unsafe.Pointer(&data[at+8])) = x.sequence
		*(*uint64)(unsafe.Pointer(&data[at+16])) = uint64(len(payload))
		copy(data[at+bareHeader:], payload)
		x.position += size
		(*atomic.Uint64)(unsafe.Pointer(&data[at])).Store(x.position)
	}
	return []int64{began}, nil
}

func (x *bare) read(n int, ready func()) ([]int64, error) {
	data := x.memory[bareRingFrom : bareRingFrom+x.o.Capacity]
	size, mask, cursor := x.frame(), x.o.Capacity-1, x.at(bareCursor)
	payload := make([]byte, x.o.PayloadBytes)
	told := x.position
	ready()
	for range n {
		if tail := x.o.Capacity - x.position&mask; tail < size {
			x.position += tail
		}
		at := x.position & mask
		x.position += size
		for stamp := (*atomic.Uint64)(unsafe.Pointer(&data[at])); stamp.Load() != x.position; {
		}
		x.sequence++
		if got := *(*uint64)(unsafe.Pointer(&data[at+8])); got != x.sequence {
			return nil, fmt.Errorf("sequence %d, want %d", got, x.sequence)
		}
		copy(payload, data[at+bareHeader:])
		if x.position-told > x.o.Capacity/64 {
			told = x.position
			cursor.Store(told)
		}
	}
	cursor.Store(x.position)
	return []int64{monotonic()}, nil
}

// copy copies n messages into a buffer of the ring's size and out again, in one process.
func (x *bare) copy(n int, ready func()) ([]int64, error) {
	buffer := x.memory[bareRingFrom : bareRingFrom+x.o.Capacity]
	from, to := make([]byte, x.o.PayloadBytes), make([]byte, x.o.PayloadBytes)
	for i := range from {
		from[i], to[i] = byte(i), 1
	}
	ready()
	began := monotonic()
	at := 0
	for range n {
		if at+len(from) > len(buffer) {
			at = 0
		}
		copy(buffer[at:], from)
		copy(to, buffer[at:at+len(from)])
		at += len(from)
	}
	return []int64{monotonic() - began}, nil
}

// words changes one word and waits until another follows.
func (x *bare) words(n int, ready func(), mine, theirs int, wait func(*atomic.Uint32, uint32)) ([]int64, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	own, other := x.word32(mine), x.word32(theirs)
	x.word = own.Load()
	ready()
	began := monotonic()
	for range n {
		x.word++
		own.Store(x.word)
		if theirs > 256 {
			futexWake(own)
		}
		wait(other, x.word)
	}
	return []int64{monotonic() - began}, nil
}

// answer waits until one word changes and has another follow.
func (x *bare) answer(n int, ready func(), theirs, mine int, wait func(*atomic.Uint32, uint32)) ([]int64, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	own, other := x.word32(mine), x.word32(theirs)
	x.word = own.Load()
	ready()
	for range n {
		x.word++
		wait(other, x.word)
		own.Store(x.word)
		if mine > 256 {
			futexWake(own)
		}
	}
	return nil, nil
}

func (x *bare) word32(offset int) *atomic.Uint32 {
	return (*atomic.Uint32)(unsafe.Pointer(&x.memory[offset]))
}

func spinUntil(w *atomic.Uint32, value uint32) {
	for w.Load() != value {
	}
}

// sleepUntil sleeps on a futex as plainly as can be: it does not even tell Go's scheduler.
func sleepUntil(w *atomic.Uint32, value uint32) {
	for {
		v := w.Load()
		if v == value {
			return
		}
		_, _, _ = unix.RawSyscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(w)), 0 /* FUTEX_WAIT */, uintptr(v), 0, 0, 0)
	}
}

func futexWake(w *atomic.Uint32) {
	_, _, _ = unix.RawSyscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(w)), 1 /* FUTEX_WAKE */, math.MaxInt32, 0, 0, 0)
}

// attributes is struct mq_attr.
type attributes struct{ flags, maxMessages, messageBytes, messages, _, _, _, _ int64 }

// openKernelQueue makes a queue and unlinks its name.
func openKernelQueue(name string) (int, error) {
	path, err := unix.BytePtrFromString(name)
	if err != nil {
		return 0, err
	}
	a := attributes{maxMessages: 10, messageBytes: 128}
	const flags = unix.O_RDWR | unix.O_CREAT | unix.O_EXCL | unix.O_CLOEXEC
	fd, _, errno := unix.Syscall6(unix.SYS_MQ_OPEN, uintptr(unsafe.Pointer(path)), flags, 0o600, uintptr(unsafe.Pointer(&a)), 0, 0)
	if errno != 0 {
		return 0, fmt.Errorf("mq_open: %w", errno)
	}
	if _, _, errno := unix.Syscall(unix.SYS_MQ_UNLINK, uintptr(unsafe.Pointer(path)), 0, 0); errno != 0 {
		return 0, fmt.Errorf("mq_unlink: %w", errno)
	}
	return int(fd), nil
}

// queue sends and receives n times, or the other way round.
func (x *bare) queue(n int, ready func(), out, in int, first bool) ([]int64, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	message := make([]byte, 128)
	send := func() syscallError {
		_, _, errno := unix.RawSyscall6(unix.SYS_MQ_TIMEDSEND, uintptr(out), uintptr(unsafe.Pointer(&message[0])), uintptr(len(message)), 0, 0, 0)
		return errno
	}
	receive := func() syscallError {
		_, _, errno := unix.RawSyscall6(unix.SYS_MQ_TIMEDRECEIVE, uintptr(in), uintptr(unsafe.Pointer(&message[0])), uintptr(len(message)), 0, 0, 0)
		return errno
	}
	if !first {
		send, receive = receive, send
	}
	ready()
	began := monotonic()
	for range n {
		for _, call := range [...]func() syscallError{send, receive} {
			if errno := call(); errno != 0 {
				return nil, fmt.Errorf("kernel queue: %w", errno)
			}
		}
	}
	return []int64{monotonic() - began}, nil
}

type syscallError = unix.Errno
