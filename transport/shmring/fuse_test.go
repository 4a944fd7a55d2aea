package shmring

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipcd/ipcd/internal/attach"
)

// hungFile returns a descriptor of a file in a FUSE file system that never answers close(2), and a
// channel that tells when somebody hangs in it. end lets all of them go, and over is closed when they are.
func hungFile(t *testing.T) (fd int, hangs, over <-chan struct{}, end func()) {
	t.Helper()
	// Not os.OpenFile: before the mount the device cannot be waited for, and Go's poller does not ask again.
	device, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Skip("/dev/fuse: ", err)
	}
	dir := t.TempDir()
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=%d,group_id=%d", device, os.Getuid(), os.Getgid())
	if err := unix.Mount("shmring-test", dir, "fuse", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		unix.Close(device)
		t.Skip("mount: ", err)
	}
	flushed, quit, served := make(chan struct{}, 16), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(served)
		serveFUSE(device, flushed, quit)
		unix.Close(device) // what is not answered fails
	}()
	fd, err = unix.Open(filepath.Join(dir, "file"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	unmountErr := unix.Unmount(dir, unix.MNT_DETACH) // the file stays for as long as it is open
	if err != nil || unmountErr != nil {
		close(quit)
		t.Fatal(err, unmountErr)
	}
	return fd, flushed, served, sync.OnceFunc(func() {
		close(quit)
		<-served
		unix.Close(fd)
	})
}

// serveFUSE speaks as much of the protocol of linux/fuse.h as it takes to open a file.
func serveFUSE(device int, flushed chan<- struct{}, quit <-chan struct{}) {
	const lookup, forget, getattr, open, flush, initialize = 1, 2, 3, 14, 25, 26
	le := binary.LittleEndian
	attributes := func(node uint64) []byte {
		a := make([]byte, 88)
		le.PutUint64(a, node)
		mode := uint32(unix.S_IFREG | 0o666)
		if node == 1 {
			mode = unix.S_IFDIR | 0o777
		}
		le.PutUint32(a[60:], mode)
		le.PutUint32(a[64:], 1) // links
		return a
	}
	request := make([]byte, 1<<20)
	// However the test fails: a process that hangs in its own file system could not even be killed.
	for giveUp := time.Now().Add(patience); time.Now().Before(giveUp); {
		select {
		case <-quit:
			return
		default:
		}
		ready := []unix.PollFd{{Fd: int32(device), Events: unix.POLLIN}}
		if n, err := unix.Poll(ready, 20); n == 0 || err == unix.EINTR {
			continue
		}
		n, err := unix.Read(device, request)
		if err == unix.EAGAIN || err == unix.EINTR {
			continue
		}
		if err != nil || n < 40 {
			return
		}
		body, errno := []byte(nil), unix.Errno(0)
		switch le.Uint32(request[4:]) {
		case initialize:
			body = make([]byte, 64)
			le.PutUint32(body, 7)
			le.PutUint32(body[4:], 31)
			le.PutUint32(body[20:], 4096) // max_write
		case lookup:
			body = append(make([]byte, 40), attributes(2)...)
			le.PutUint64(body, 2)
		case getattr:
			body = append(make([]byte, 16), attributes(le.Uint64(request[16:]))...)
		case open:
			body = make([]byte, 16)
		case flush:
			flushed <- struct{}{}
			continue
		case forget:
			continue
		default:
			errno = unix.ENOSYS
		}
		answer := make([]byte, 16, 16+len(body))
		le.PutUint32(answer, uint32(16+len(body)))
		le.PutUint32(answer[4:], uint32(-int32(errno)))
		copy(answer[8:16], request[8:16])
		if _, err := unix.Write(device, append(answer, body...)); err != nil {
			return
		}
	}
}

// Whoever passes a descriptor that cannot be closed hurts nobody else, and keeps nothing from stopping.
func TestADescriptorWhoseCloseHangsHurtsNobody(t *testing.T) {
	s, rings, path := start(t, func(s *Server) {
		s.times.hello = patience
		s.times.readers = 10 * time.Millisecond
	})
	fd, hangs, over, end := hungFile(t)
	defer end()
	adopt := bytesOf(t, attach.Adopt{Role: attach.Producer, Name: "/ring", MemberID: 5})
	for range 3 {
		dial(t, path).raw(adopt, fd)
		<-hangs
	}
	honest := dial(t, path)
	honest.join(attach.Producer)
	honest.pull()
	s.Stop()
	select {
	case <-over:
		t.Error("Stop waited until the closes came to an end")
	default:
	}
	rings.await(func() bool { return rings.joining == 0 })
	end()
	s.readers.Wait()
}
