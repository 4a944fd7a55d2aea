//go:build linux

package ring

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/ipcd/ipcd/internal/attach"
	"github.com/ipcd/ipcd/internal/reason"
	"github.com/ipcd/ipcd/internal/shm"
)

// request is what a handle asks to become.
type request struct {
	name     string
	attach   string // as the caller gave it
	role     attach.Role
	lossless bool
	logger   func(string)
	answer   time.Duration // answerTimeout, but in tests
}

// place is a member's place in its ring. It stays the same as long as the member lives.
type place struct {
	ringID, id, epoch uint64 // epoch: at which it joined
	slot              uint32
	geometry          shm.Geometry
	lossless          bool // a producer waits for consumers; a consumer makes producers wait
	stall             time.Duration
}

// join becomes a member. It returns the member's own memory, which is writable, and the other members;
// both are for the Writer or Reader. start must follow.
func join(ctx context.Context, r request) (_ *membership, own *shm.Memory, _ shm.Members, _ error) {
	if err := checkName(r.name); err != nil {
		return nil, nil, shm.Members{}, err
	}
	path, pathErr := attachPath(r.attach)
	if pathErr != nil {
		return nil, nil, shm.Members{}, pathErr.on(r.name)
	}
	if r.answer == 0 {
		r.answer = answerTimeout
	}
	c, err := dial(ctx, path)
	if err != nil {
		return nil, nil, shm.Members{}, asError(err, r.name)
	}
	m := newMembership(r, path)
	memory, members, err := m.enter(ctx, c)
	if err != nil {
		c.close()
		m.release()
		return nil, nil, shm.Members{}, asError(err, r.name)
	}
	m.conn = c
	return m, memory, members, nil
}

// asError is what the caller gets to see of an error.
func asError(err error, ring string) *Error {
	var e *Error
	if !errors.As(err, &e) {
		e = newError(reason.Internal, "%v", err).because(err)
	}
	return e.on(ring)
}

// enter goes through the protocol from ATTACH to the first list of members.
func (m *membership) enter(ctx context.Context, c *conn) (_ *shm.Memory, _ shm.Members, err error) {
	r, err := m.askInTime(ctx, c, attach.Attach{Role: m.role, Lossless: m.asked, Name: m.name})
	if err != nil {
		return nil, shm.Members{}, err
	}
	terms, ok := r.Reply.(attach.Memory)
	if !ok {
		return nil, shm.Members{}, c.unexpected(r)
	}
	own, err := m.accept(terms, r.files[0])
	if err != nil {
		return nil, shm.Members{}, err
	}
	defer func() {
		if err != nil {
			own.Release()
		}
	}()
	if r, err = m.askInTime(ctx, c, attach.Ready{}); err != nil {
		return nil, shm.Members{}, err
	}
	attached, ok := r.Reply.(attach.Attached)
	if !ok {
		return nil, shm.Members{}, c.unexpected(r)
	}
	m.token, m.own, m.joined = attached.Token, r.files[0], m.place.epoch
	if m.role == attach.Consumer {
		m.joined = max(m.joined, attached.Epoch) // it joined only now: lanes may have come since it was given its memory
	}
	if err := m.takePage(r.files[1]); err != nil {
		return nil, shm.Members{}, err
	}
	ctx, cancel := m.inTime(ctx)
	defer cancel()
	members, err := m.pull(ctx, c)
	return own, members, err
}

// accept looks at what the daemon offers and maps the memory. The descriptor is closed: the daemon hands
// the memory to nobody before that.
func (m *membership) accept(terms attach.Memory, file *os.File) (*shm.Memory, error) {
	defer file.Close()
	m.place = place{
		ringID: terms.RingID, id: terms.MemberID, epoch: terms.Epoch, slot: terms.Slot,
		geometry: shm.Geometry{Capacity: terms.Capacity, MaxFrame: terms.MaxFrame}, lossless: terms.Lossless, stall: terms.Stall,
	}
	size := int64(shm.ConsumerSize)
	if m.role == attach.Producer {
		if err := m.place.geometry.Check(); err != nil {
			return nil, newError(reason.Internal, "the lane as the daemon describes it: %v", err)
		}
		size = shm.LaneSize(terms.Capacity)
	}
	if m.asked && !terms.Lossless {
		return nil, newError(reason.InvalidArgument, "lossless was asked for, but the ring's policy is overwrite: its producers wait for nobody; read without it, or make the ring with the policy lossless")
	}
	memory, err := mapFile(file, size, true)
	if err != nil {
		return nil, err
	}
	if err := memory.Populate(); err != nil {
		memory.Release()
		return nil, newError(reason.QuotaExceeded, "%v; the memory limit of this process or its cgroup must leave room for it", err).because(err)
	}
	return memory, nil
}

// takePage maps the members page, for the next list of members.
func (m *membership) takePage(file *os.File) error {
	defer file.Close()
	memory, err := mapFile(file, shm.MembersSize, false)
	if err != nil {
		return err
	}
	m.page.Release() // one that was not handed on
	m.page = shm.NewPage(memory)
	return nil
}

// pull asks who is there.
func (m *membership) pull(ctx context.Context, c *conn) (shm.Members, error) {
	r, err := c.ask(ctx, attach.Pull{Epoch: c.epoch})
	if err != nil {
		return shm.Members{}, err
	}
	list, ok := r.Reply.(attach.Members)
	if !ok {
		return shm.Members{}, c.unexpected(r)
	}
	members, err := m.peers.learn(list, r.files)
	if err != nil {
		return shm.Members{}, err
	}
	c.epoch = list.Epoch
	members.Page, m.page = m.page, nil
	return members, nil
}

// adopt hands the member's memory to a daemon that was started anew.
func (m *membership) adopt(ctx context.Context, c *conn) error {
	r, err := c.ask(ctx, attach.Adopt{
		Role: m.role, Lossless: m.place.lossless, RingID: m.place.ringID, MemberID: m.place.id,
		Epoch: m.place.epoch, Slot: m.place.slot, Token: m.token, Name: m.name,
	}, m.own)
	if errors.Is(err, ErrInternal) {
		return &passing{err} // the daemon has trouble of its own, and has decided nothing
	}
	if err != nil {
		return err
	}
	adopted, ok := r.Reply.(attach.Adopted)
	if !ok {
		return c.unexpected(r)
	}
	m.token = adopted.Token
	return m.takePage(r.files[0])
}

func (m *membership) askInTime(ctx context.Context, c *conn, request attach.Request) (received, error) {
	ctx, cancel := m.inTime(ctx)
	defer cancel()
	return c.ask(ctx, request)
}

// inTime bounds one step of attaching.
func (m *membership) inTime(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, m.answer, errSilent)
}
