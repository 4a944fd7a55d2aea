package shmring

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipcd/ipcd/internal/attach"
	"github.com/ipcd/ipcd/internal/reason"
)

// errOver is the event that next was also waiting for.
var errOver = errors.New("the membership is over")

// talk is the conversation, in the order of the protocol. The error says why it ended; nil: by DETACH.
func (c *conn) talk() error {
	member, err := c.join()
	if err != nil {
		return err
	}
	err = c.serveMember(member)
	c.doing.left()
	if errors.Is(err, errStopping) {
		return err // it goes on, and comes back
	}
	if err != nil {
		member.Leave(err.Error())
		return err
	}
	member.Leave("detached")
	return c.write(attach.Detached{})
}

// join waits for the first request and serves it.
func (c *conn) join() (Member, error) {
	r, err := c.next(c.server.times.hello, nil, "ATTACH or ADOPT")
	if err != nil {
		return nil, err
	}
	switch p := r.packet.(type) {
	case attach.Attach:
		m, err := c.attach(p)
		if err == nil {
			c.doing.joined(m, p.Role, p.Name)
		}
		return m, err
	case attach.Adopt:
		defer r.memory.Close()
		c.adopted = true
		m, err := c.server.rings.Adopt(c.ctx, c.id, p, r.memory)
		if err == nil {
			c.doing.joined(m, p.Role, p.Name)
		}
		return m, err
	}
	return nil, attach.ProtocolError(r.packet.Kind().String() + " from somebody who is not attached; the first request is ATTACH or ADOPT")
}

// attach takes a new member up to the point where its memory is closed to writers.
func (c *conn) attach(p attach.Attach) (Member, error) {
	joining, err := c.server.rings.Attach(c.ctx, c.id, p)
	if err != nil {
		return nil, err
	}
	if err = c.send(joining.Header(), joining.Memory()); err == nil {
		err = c.expect(attach.KindReady, c.server.times.ready)
	}
	if err != nil {
		joining.Abandon()
		return nil, err
	}
	return joining.Ready()
}

// expect waits for that request alone.
func (c *conn) expect(kind attach.Kind, timeout time.Duration) error {
	r, err := c.next(timeout, nil, kind.String())
	if err != nil {
		return err
	}
	r.memory.Close()
	if r.packet.Kind() != kind {
		return attach.ProtocolError(r.packet.Kind().String() + " where " + kind.String() + " must come")
	}
	return nil
}

// serveMember welcomes a member and serves it until it detaches, which is nil, or is over.
func (c *conn) serveMember(m Member) error {
	if err := c.welcome(m); err != nil {
		return err
	}
	sent := map[uint64]bool{}
	gone, patience := m.Gone(), time.Duration(0)
	for {
		r, err := c.next(patience, gone, "MEMBERS")
		if errors.Is(err, errOver) {
			// The epoch has risen: it will ask, and be told. If it sleeps it is not waited for.
			gone, patience = nil, c.server.times.got
			continue
		}
		if err != nil {
			return whyGone(m, patience > 0, err)
		}
		r.memory.Close()
		switch p := r.packet.(type) {
		case attach.Pull:
			if err := c.list(m, sent); err != nil {
				return err
			}
		case attach.Detach:
			return nil
		default:
			return attach.ProtocolError(p.Kind().String() + " from a member; it may send MEMBERS, GOT after descriptors, and DETACH")
		}
	}
}

// whyGone is what a member is told that did not ask any more after its membership was over: why that is.
func whyGone(m Member, over bool, err error) error {
	var e *reason.Error
	if !over || !errors.As(err, &e) || e.Reason != reason.TimedOut {
		return err
	}
	_, files, why := m.Members(func(uint64) bool { return true })
	for _, f := range files {
		f.Close()
	}
	if why == nil {
		return err
	}
	return why
}

// welcome tells a new member that it is one. Its files are of no use to this side afterwards.
func (c *conn) welcome(m Member) error {
	defer m.Own().Close()
	defer m.Page().Close()
	if c.adopted {
		return c.send(attach.Adopted{Token: m.Token(), Epoch: m.Epoch()}, m.Page())
	}
	return c.send(attach.Attached{Token: m.Token(), Epoch: m.Epoch()}, m.Own(), m.Page())
}

// list answers MEMBERS. sent are the members whose descriptors went out on this connection.
func (c *conn) list(m Member, sent map[uint64]bool) error {
	members, files, err := m.Members(func(id uint64) bool { return sent[id] })
	if err != nil {
		return err
	}
	err = c.send(members, files...)
	for _, f := range files {
		f.Close()
	}
	if err != nil {
		return err
	}
	there := make(map[uint64]bool, len(members.Entries))
	for _, e := range members.Entries {
		there[e.ID] = true
		if e.File {
			sent[e.ID] = true
		}
	}
	if !members.Partial { // who has left does not come back under the same id
		for id := range sent {
			if !there[id] {
				delete(sent, id)
			}
		}
	}
	return nil
}

// lastWord tells the peer, if it is still there, why there is no more to be had.
func (c *conn) lastWord(err error) {
	cause := context.Cause(c.ctx)
	for _, away := range []error{errHungUp, errDead, errSilent, unix.EPIPE, unix.ECONNRESET, unix.ENOTCONN} {
		if err == nil || errors.Is(cause, away) || errors.Is(err, away) {
			return
		}
	}
	var wrong attach.ProtocolError
	switch {
	case errors.As(err, &wrong):
		bid(c.sock, attach.ErrorOfProtocol(wrong))
	case errors.Is(err, unix.ETOOMANYREFS):
		bid(c.sock, attach.ErrorOf(reason.New(reason.QuotaExceeded, "too many descriptors are on the way from the daemon, for all its peers; try again later")))
	case errors.Is(cause, errStopping):
		bid(c.sock, attach.ErrorOf(c.server.explain(cause)))
	default:
		bid(c.sock, attach.ErrorOf(c.server.explain(err)))
	}
}
