package shmring

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipcd/ipcd/internal/attach"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/reason"
)

// memfd returns a new file in memory that holds the text.
func memfd(text string) *os.File {
	fd, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		panic(err)
	}
	f := os.NewFile(uintptr(fd), "test")
	if _, err := f.WriteString(text); err != nil {
		panic(err)
	}
	return f
}

// fakeRings is a broker with one ring, "/ring", that remembers what it was asked.
type fakeRings struct {
	t *testing.T

	mu      sync.Mutex
	changed *sync.Cond
	wait    func(ctx context.Context) error // if it is not nil, called in Attach, without the lock
	last    uint64
	joining int                    // made, and neither ready nor abandoned
	members map[uint64]*fakeMember // live
	left    map[uint64]string      // why members left
	adopts  []attach.Adopt
	partial bool // lists are
	others  int  // members that lists have besides the live ones, with descriptors
}

func newFakeRings(t *testing.T) *fakeRings {
	f := &fakeRings{t: t, members: map[uint64]*fakeMember{}, left: map[uint64]string{}}
	f.changed = sync.NewCond(&f.mu)
	return f
}

func (f *fakeRings) check(name string) error {
	if name != "/ring" {
		return reason.New(reason.RingNotFound, "there is no such ring")
	}
	return nil
}

func (f *fakeRings) Attach(ctx context.Context, id identity.Identity, q attach.Attach) (Joining, error) {
	if id.Kind != identity.Unix || id.UID != uint32(os.Getuid()) || id.PID == 0 {
		f.t.Errorf("attached by %+v", id)
	}
	f.mu.Lock()
	wait := f.wait
	f.mu.Unlock()
	if wait != nil {
		if err := wait(ctx); err != nil {
			return nil, err
		}
	}
	if err := f.check(q.Name); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last++
	f.joining++
	f.changed.Broadcast()
	return &fakeJoining{rings: f, id: f.last, memory: memfd(fmt.Sprint("memory of ", f.last))}, nil
}

func (f *fakeRings) Adopt(_ context.Context, _ identity.Identity, q attach.Adopt, memory *os.File) (Member, error) {
	if err := f.check(q.Name); err != nil {
		return nil, err
	}
	if _, err := memory.Stat(); err != nil {
		f.t.Error(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.adopts = append(f.adopts, q)
	return f.enterLocked(q.MemberID), nil
}

func (f *fakeRings) enterLocked(id uint64) *fakeMember {
	m := &fakeMember{rings: f, id: id, own: memfd(fmt.Sprint("own of ", id)), page: memfd("page"), gone: make(chan struct{})}
	f.members[id] = m
	f.changed.Broadcast()
	return m
}

// delay lets every Attach wait in that function.
func (f *fakeRings) delay(wait func(context.Context) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wait = wait
}

// await waits until the condition holds, which is asked for under the lock.
func (f *fakeRings) await(condition func() bool) {
	f.t.Helper()
	expired := false
	timer := time.AfterFunc(patience, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		expired = true
		f.changed.Broadcast()
	})
	defer timer.Stop()
	f.mu.Lock()
	defer f.mu.Unlock()
	for !condition() {
		if expired {
			f.t.Fatalf("waited in vain; %d are joining, %d are members, left: %v", f.joining, len(f.members), f.left)
		}
		f.changed.Wait()
	}
}

// awaitLeft waits until that member has left, and tells why.
func (f *fakeRings) awaitLeft(id uint64) string {
	f.t.Helper()
	f.await(func() bool { _, left := f.left[id]; return left })
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.left[id]
}

// awaitNobody waits until there is no member and none is joining.
func (f *fakeRings) awaitNobody() {
	f.t.Helper()
	f.await(func() bool { return f.joining == 0 && len(f.members) == 0 })
}

type fakeJoining struct {
	rings  *fakeRings
	id     uint64
	memory *os.File
	over   bool
}

func (j *fakeJoining) Header() attach.Memory {
	return attach.Memory{RingID: 7, MemberID: j.id, Slot: 1, Capacity: 1 << 16, MaxFrame: 1 << 14, Epoch: 9, Size: 1<<16 + 8192}
}

func (j *fakeJoining) Memory() *os.File { return j.memory }

func (j *fakeJoining) end() {
	if j.over {
		j.rings.t.Error("a Joining was ended twice")
	}
	j.over = true
	j.rings.joining--
	j.rings.changed.Broadcast()
	j.memory.Close()
}

func (j *fakeJoining) Ready() (Member, error) {
	j.rings.mu.Lock()
	defer j.rings.mu.Unlock()
	j.end()
	return j.rings.enterLocked(j.id), nil
}

func (j *fakeJoining) Abandon() {
	j.rings.mu.Lock()
	defer j.rings.mu.Unlock()
	j.end()
}

type fakeMember struct {
	rings     *fakeRings
	id        uint64
	own, page *os.File
	gone      chan struct{}
}

func (m *fakeMember) Token() (t [32]byte) { return [32]byte{0: byte(m.id), 31: 1} }
func (m *fakeMember) Epoch() uint64       { return 10 }
func (m *fakeMember) Own() *os.File       { return m.own }
func (m *fakeMember) Page() *os.File      { return m.page }

func (m *fakeMember) Behind() uint64 { return 100 + m.id }

func (m *fakeMember) Gone() <-chan struct{} { return m.gone }

// Members lists all live members and the others, in the order of their ids.
func (m *fakeMember) Members(sent func(uint64) bool) (attach.Members, []*os.File, error) {
	f := m.rings
	f.mu.Lock()
	defer f.mu.Unlock()
	select {
	case <-m.gone:
		return attach.Members{}, nil, reason.New(reason.RingDeleted, "the ring was deleted")
	default:
	}
	if _, left := f.left[m.id]; left {
		f.t.Error("a member that has left was asked for its list")
	}
	var ids []uint64
	for id := range f.members {
		ids = append(ids, id)
	}
	for i := range f.others {
		ids = append(ids, 1_000_000+uint64(i))
	}
	slices.Sort(ids)
	list := attach.Members{Epoch: 11, Partial: f.partial}
	var files []*os.File
	for _, id := range ids {
		e := attach.Entry{ID: id, Kind: attach.EntryLane, File: !sent(id)}
		list.Entries = append(list.Entries, e)
		if e.File {
			files = append(files, memfd(fmt.Sprint("member ", id)))
		}
	}
	return list, files, nil
}

func (m *fakeMember) Leave(why string) {
	f := m.rings
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, again := f.left[m.id]; again {
		f.t.Errorf("member %d left twice", m.id)
	}
	f.left[m.id] = why
	delete(f.members, m.id)
	f.changed.Broadcast()
	m.own.Close()
	m.page.Close()
}

// remove lets a member be gone, as if its ring had been deleted.
func (f *fakeRings) remove(id uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.members[id].gone)
}
