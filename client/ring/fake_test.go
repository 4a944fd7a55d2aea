//go:build linux

package ring

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ipcd/ipcd/internal/attach"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
	"github.com/ipcd/ipcd/internal/shm"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long tests wait for what must come.
const patience = 30 * time.Second

// fake is a daemon with one ring, /ring. It keeps the protocol's promises as simply as can be, and
// misbehaves where a test wants it to.
type fake struct {
	t    testing.TB
	path string

	lossless bool
	geometry shm.Geometry
	stall    time.Duration

	// hook is asked before each request is served. An error is the answer; errDrop is a hang-up.
	hook func(attach.Request) error
	// twist may change each reply and its files before they are sent.
	twist func(attach.Reply, []*os.File) (attach.Reply, []*os.File)

	mu       sync.Mutex // guards all below
	listener *net.UnixListener
	conns    map[*net.UnixConn]bool
	handlers sync.WaitGroup
	run      uint64
	epoch    uint64
	partial  bool
	page     *shm.Page
	pageFile *os.File
	members  map[uint64]*fakeMember
	lastID   uint64
	tokens   map[uint64][]token  // the two given last, by member; they outlive a run
	seen     map[attach.Kind]int // requests by kind
	changed  chan struct{}       // closed and replaced when members or seen change
}

type fakeMember struct {
	id, epoch       uint64
	slot            uint32
	role            attach.Role
	lossless, ended bool
	size            int64
	file, readOnly  *os.File
	memory          *shm.Memory // writable, for tests that spoil it; nil after a restart
}

// errDrop makes the fake hang up.
var errDrop = errors.New("hang up")

const ringID = 77

// newFake starts a daemon whose ring has the smallest capacity. change may be nil.
func newFake(t testing.TB, change func(*fake)) *fake {
	t.Helper()
	dir, err := os.MkdirTemp("", "ring") // short: the path of a socket has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{
		t: t, path: filepath.Join(dir, "attach.sock"), geometry: shm.Geometry{Capacity: limits.RingCapacityMin, MaxFrame: 4096},
		stall: time.Minute, seen: map[attach.Kind]int{}, tokens: map[uint64][]token{}, changed: make(chan struct{}),
	}
	if change != nil {
		change(f)
	}
	t.Cleanup(func() {
		f.stop()
		os.RemoveAll(dir)
		expectNothingMapped(t)
	})
	f.start()
	return f
}

// start starts the daemon's next run, which knows no members.
func (f *fake) start() {
	f.t.Helper()
	file, err := shm.CreateMemory("members", shm.MembersSize)
	if err != nil {
		f.t.Fatal(err)
	}
	memory, err := shm.Map(file, shm.MembersSize, true)
	if err != nil {
		f.t.Fatal(err)
	}
	readOnly, err := shm.Reopen(file, os.O_RDONLY)
	if err != nil {
		f.t.Fatal(err)
	}
	file.Close()
	os.Remove(f.path)
	l, err := net.ListenUnix(attach.Network, &net.UnixAddr{Name: f.path, Net: attach.Network})
	if err != nil {
		f.t.Fatal(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.run++
	f.epoch = f.run << 32
	f.page, f.pageFile = shm.NewPage(memory), readOnly
	f.page.Raise(f.epoch)
	f.members = map[uint64]*fakeMember{}
	f.conns = map[*net.UnixConn]bool{}
	f.listener = l
	f.handlers.Go(func() {
		for {
			c, err := l.AcceptUnix()
			if err != nil {
				return
			}
			f.mu.Lock()
			if f.conns == nil { // stopping
				f.mu.Unlock()
				c.Close()
				continue
			}
			f.conns[c] = true
			f.handlers.Go(func() { f.handle(c) })
			f.mu.Unlock()
		}
	})
}

// stop ends the run. Members are forgotten, and go on.
func (f *fake) stop() {
	f.mu.Lock()
	if f.listener != nil {
		f.listener.Close()
		f.listener = nil
	}
	for c := range f.conns {
		c.Close()
	}
	f.conns = nil
	f.mu.Unlock()
	f.handlers.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range f.members {
		m.close()
	}
	f.members = nil
	if f.page != nil {
		f.page.Release()
		f.pageFile.Close()
		f.page = nil
	}
}

// set changes what the daemon does, between requests.
func (f *fake) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// raise makes everybody ask for members.
func (f *fake) raise() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.raiseLocked()
}

func (f *fake) raiseLocked() {
	f.epoch++
	f.page.Raise(f.epoch)
	f.noteLocked()
}

func (f *fake) noteLocked() {
	close(f.changed)
	f.changed = make(chan struct{})
}

// await waits until ok, which is asked under the lock, whenever something changed.
func (f *fake) await(what string, ok func() bool) {
	f.t.Helper()
	deadline := time.After(patience)
	for {
		f.mu.Lock()
		done, changed := ok(), f.changed
		f.mu.Unlock()
		if done {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			f.t.Fatalf("waited %v for %s", patience, what)
		}
	}
}

// count is how many live members there are. It is called under the lock.
func (f *fake) count() int {
	n := 0
	for _, m := range f.members {
		if !m.ended {
			n++
		}
	}
	return n
}

func (m *fakeMember) close() {
	m.file.Close()
	m.readOnly.Close()
	m.memory.Release()
}

// handle serves a connection.
func (f *fake) handle(c *net.UnixConn) {
	var joining, member *fakeMember
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		stopping := f.conns == nil
		delete(f.conns, c)
		c.Close()
		if joining != nil {
			joining.close()
		}
		if member != nil && !stopping {
			f.leaveLocked(member)
		}
	}()
	sent := map[uint64]bool{}
	owed := false // a GOT
	for first := true; ; first = false {
		q, file, err := attach.ReceiveRequest(c, first)
		if err != nil {
			var malformed attach.ProtocolError
			if errors.As(err, &malformed) {
				f.t.Errorf("the client sent nonsense: %v", err)
			}
			return
		}
		f.mu.Lock()
		f.seen[q.Kind()]++
		f.noteLocked()
		hook := f.hook
		f.mu.Unlock()
		if _, got := q.(attach.Got); got != owed {
			f.t.Errorf("%s came, while a GOT is owed: %v", q.Kind(), owed)
		} else if got {
			owed = false
			continue
		}
		if hook != nil {
			if err := hook(q); err != nil {
				file.Close()
				var e *reason.Error
				if errors.As(err, &e) {
					_ = attach.Send(c, attach.ErrorOf(e))
				}
				return
			}
		}
		var reply attach.Reply
		var files []*os.File
		switch q := q.(type) {
		case attach.Attach:
			joining, reply, err = f.attach(q)
			if err == nil {
				files = []*os.File{joining.file}
			}
		case attach.Ready:
			if err = f.ready(joining); err == nil {
				member, joining = joining, nil
				reply, files = attach.Attached{Token: f.token(member)}, []*os.File{member.readOnly, f.pageFile}
			}
		case attach.Adopt:
			if member, err = f.adopt(q, file); err == nil {
				reply, files = attach.Adopted{Token: f.token(member)}, []*os.File{f.pageFile}
			}
			file.Close()
		case attach.Pull:
			reply, files = f.list(member.role, sent)
		case attach.Detach:
			f.mu.Lock()
			f.leaveLocked(member)
			f.mu.Unlock()
			member = nil
			_ = attach.Send(c, attach.Detached{})
			return
		}
		if err != nil {
			_ = attach.Send(c, attach.ErrorOf(reason.New(reason.AccessDenied, "%v", err)))
			return
		}
		f.mu.Lock()
		twist := f.twist
		f.mu.Unlock()
		if twist != nil {
			reply, files = twist(reply, files)
		}
		owed = len(files) > 0
		err = attach.Send(c, reply, files...)
		if _, isList := reply.(attach.Members); isList {
			received{files: files}.closeFiles()
		}
		if err != nil {
			return
		}
	}
}
