package posixmq

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
)

const limitsDirectory = "/proc/sys/fs/mqueue/"

// The kernel's limits, mq_overview(7). A process with CAP_SYS_RESOURCE is not bound by them.
const (
	msgMax     = "msg_max"
	msgSizeMax = "msgsize_max"
	queuesMax  = "queues_max"
)

// kernelLimit returns the value of one of the limits, or the kernel's own default if it cannot be read.
func kernelLimit(name string) int {
	text, err := os.ReadFile(limitsDirectory + name)
	if err == nil {
		if n, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
			return n
		}
	}
	return map[string]int{msgMax: 10, msgSizeMax: 8192, queuesMax: 256}[name]
}

// PrefixSize is how many bytes the type takes before each body, if a type prefix is declared.
const PrefixSize = 8

// WantedGeometry is the shape for a queue whose bodies have up to maxMessageSize bytes: as declared, or
// else 10 messages of the queue's size (and the type prefix, if there is one), at most msgsize_max.
func WantedGeometry(k queue.KernelQueue, maxMessageSize int) Geometry {
	g := Geometry{MaxMessages: k.MaxMessages, MessageSize: k.MessageSize}
	if g.MaxMessages == 0 {
		g.MaxMessages = limits.KernelMessagesDefault
	}
	if g.MessageSize == 0 {
		g.MessageSize = maxMessageSize
		if k.TypePrefix {
			g.MessageSize += PrefixSize
		}
		g.MessageSize = max(1, min(g.MessageSize, kernelLimit(msgSizeMax), hardMessageSize))
	}
	return g
}

// cost is what the kernel charges a queue against RLIMIT_MSGQUEUE: its messages, and for each of them
// a struct msg_msg and a tree node, getrlimit(2).
func (g Geometry) cost() int64 { return int64(g.MaxMessages) * int64(g.MessageSize+2*48) }

// Explain turns an error of Create into a *reason.Error that names the limit in the way, its value and
// how to raise it.
func Explain(err error, name string, g Geometry) *reason.Error {
	limit := func(format string, args ...any) *reason.Error {
		return reason.New(reason.KernelLimit, "kernel queue %s of %d messages of %d bytes: %s", name, g.MaxMessages, g.MessageSize, fmt.Sprintf(format, args...))
	}
	var e unix.Errno
	if !errors.As(err, &e) {
		return reason.New(reason.Internal, "kernel queue %s: %v", name, err)
	}
	switch e {
	case unix.EEXIST:
		return reason.New(reason.KernelNameTaken, "a kernel queue %s exists that ipcd did not make: choose another name, or have its owner mq_unlink it", name)
	case unix.EMFILE:
		if fd, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 0); err == nil || err == unix.EBADF {
			if err == nil {
				unix.Close(fd)
			}
			return limit("it takes %d bytes of RLIMIT_MSGQUEUE, which is %s for all kernel queues that the daemon's user has; raise it (systemd: LimitMSGQUEUE=infinity; shell: ulimit -q), grant CAP_SYS_RESOURCE, or ask for fewer or smaller messages", g.cost(), rlimit(unix.RLIMIT_MSGQUEUE))
		}
		return limit("the daemon has used up RLIMIT_NOFILE, which is %s; raise it (systemd: LimitNOFILE=; shell: ulimit -n)", rlimit(unix.RLIMIT_NOFILE))
	case unix.ENFILE:
		return limit("the host's limit of open files is reached; raise it (sysctl fs.file-max)")
	case unix.ENOSPC:
		return limit("fs.mqueue.queues_max allows %d kernel queues and so many exist; raise it (sysctl -w fs.mqueue.queues_max=...) or grant CAP_SYS_RESOURCE", kernelLimit(queuesMax))
	case unix.EINVAL, unix.EOVERFLOW:
		if most := kernelLimit(msgMax); g.MaxMessages > most {
			return limit("fs.mqueue.msg_max allows %d messages; raise it (sysctl -w fs.mqueue.msg_max=%d, at most %d) or ask for fewer", most, min(g.MaxMessages, hardMaxMessages), hardMaxMessages)
		}
		if most := kernelLimit(msgSizeMax); g.MessageSize > most {
			return limit("fs.mqueue.msgsize_max allows %d bytes; raise it (sysctl -w fs.mqueue.msgsize_max=%d, at most %d) or ask for less", most, min(g.MessageSize, hardMessageSize), hardMessageSize)
		}
		return limit("the kernel refuses it (%v); limits: msg_max %d, msgsize_max %d, RLIMIT_MSGQUEUE %s", e, kernelLimit(msgMax), kernelLimit(msgSizeMax), rlimit(unix.RLIMIT_MSGQUEUE))
	case unix.ENOMEM:
		return limit("the kernel has no memory for it")
	case unix.ENOSYS:
		return limit("this kernel has no POSIX message queues (CONFIG_POSIX_MQUEUE), or a sandbox forbids them")
	case unix.EACCES, unix.EPERM:
		return reason.New(reason.AccessDenied, "kernel queue %s: the daemon may not make it (%v)", name, e)
	case unix.ENAMETOOLONG:
		return reason.Invalid("name", "kernel queue %s: a kernel queue's name may have 255 characters", name)
	}
	return reason.New(reason.Internal, "kernel queue %s: %v", name, e)
}

func rlimit(resource int) string {
	var l unix.Rlimit
	if err := unix.Getrlimit(resource, &l); err != nil {
		return "unknown"
	}
	if l.Cur == unix.RLIM_INFINITY {
		return "unlimited"
	}
	return fmt.Sprint(l.Cur)
}
