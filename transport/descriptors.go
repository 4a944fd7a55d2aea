package transport

import (
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipcd/ipcd/internal/limits"
)

// SpareDescriptors keeps an accepted connection waiting while the process has few descriptors left, so that strangers'
// connections never take those that the journal and the kernel doors need. It returns when there are enough, or stop
// is closed. reserves is how many times the reserve is to be free: for doors whose connections take more than one
// descriptor. The door accepts nothing meanwhile: who comes next waits in the kernel's backlog.
func SpareDescriptors(conn syscall.Conn, reserves int, stop <-chan struct{}) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	// The kernel gives the lowest number that is free (open(2)): a high one means that all below are taken.
	enough := descriptorLimit() - reserves*reserve(descriptorLimit())
	taken := 0
	if raw.Control(func(fd uintptr) { taken = int(fd) }) != nil {
		return
	}
	for pause := 5 * time.Millisecond; taken >= enough; pause = min(2*pause, limits.AcceptBackoff) {
		select {
		case <-stop:
			return
		case <-time.After(pause):
		}
		taken = enough
		err := raw.Control(func(fd uintptr) {
			if lowest, err := unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0); err == nil {
				taken = lowest
				unix.Close(lowest)
			}
		})
		if err != nil { // it was closed
			return
		}
	}
}

// reserve is how many descriptors doors leave to the rest of the daemon.
func reserve(limit int) int { return min(limits.DescriptorReserve, limit/4) }

// descriptorLimit is how many descriptors the process may have (RLIMIT_NOFILE). Go has raised it to the hard limit.
var descriptorLimit = sync.OnceValue(func() int {
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) != nil || l.Cur > 1<<30 {
		return 1 << 30
	}
	return int(l.Cur)
})
