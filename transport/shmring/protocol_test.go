package shmring

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipcd/ipcd/internal/attach"
	"github.com/ipcd/ipcd/internal/reason"
)

func TestAMemberAttachesListsAndDetaches(t *testing.T) {
	_, rings, path := start(t, nil)
	c := dial(t, path)
	c.send(attach.Attach{Role: attach.Producer, Name: "/ring"})
	p, files := c.receive()
	memory := p.(attach.Memory)
	if memory.MemberID == 0 || memory.RingID != 7 || memory.Size != 1<<16+8192 {
		t.Errorf("%+v", memory)
	}
	if text, _ := io.ReadAll(io.NewSectionReader(files[0], 0, 100)); string(text) != fmt.Sprint("memory of ", memory.MemberID) {
		t.Errorf("the memory is %q", text)
	}
	c.send(attach.Got{})
	c.send(attach.Ready{})
	p, files = c.receive()
	if attached := p.(attach.Attached); attached.Token[31] != 1 || attached.Epoch != 10 {
		t.Errorf("%+v", attached)
	}
	for i, want := range []string{fmt.Sprint("own of ", memory.MemberID), "page"} {
		if text, _ := io.ReadAll(io.NewSectionReader(files[i], 0, 100)); string(text) != want {
			t.Errorf("descriptor %d is %q, want %q", i, text, want)
		}
	}
	c.send(attach.Got{})

	// Descriptors come once on a connection.
	if m := c.pull(); len(m.Entries) != 1 || !m.Entries[0].File {
		t.Errorf("first %+v", m)
	}
	if m := c.pull(); len(m.Entries) != 1 || m.Entries[0].File {
		t.Errorf("again %+v", m)
	}
	second := dial(t, path)
	id := second.join(attach.Consumer)
	if m := c.pull(); len(m.Entries) != 2 || m.Entries[0].File || !m.Entries[1].File || m.Entries[1].ID != id {
		t.Errorf("with another %+v", m)
	}
	second.send(attach.Detach{})
	expect[attach.Detached](second)
	second.hungUp()
	if why := rings.awaitLeft(id); why != "detached" {
		t.Errorf("left: %s", why)
	}
	if m := c.pull(); len(m.Entries) != 1 {
		t.Errorf("after the other left %+v", m)
	}
}

// Who was missing from a complete list has left: nothing is remembered of it.
func TestWhoHasLeftIsForgotten(t *testing.T) {
	_, rings, path := start(t, nil)
	set := func(others int, partial bool) {
		rings.mu.Lock()
		defer rings.mu.Unlock()
		rings.others, rings.partial = others, partial
	}
	c := dial(t, path)
	c.join(attach.Producer)
	for i, step := range []struct {
		others  int
		partial bool
		files   int
	}{{2, false, 3}, {0, true, 0}, {2, false, 0}, {0, false, 0}, {2, false, 2}} {
		set(step.others, step.partial)
		if m := c.pull(); m.Files() != step.files {
			t.Errorf("list %d has %d descriptors, want %d", i, m.Files(), step.files)
		}
	}
}

func TestAdoptHandsTheMemoryIn(t *testing.T) {
	_, rings, path := start(t, nil)
	c := dial(t, path)
	memory := memfd("mine")
	defer memory.Close()
	q := attach.Adopt{Role: attach.Consumer, Lossless: true, RingID: 7, MemberID: 99, Epoch: 3, Slot: 5, Token: [32]byte{1, 2}, Name: "/ring"}
	c.send(q, memory)
	if p := expect[attach.Adopted](c); p.Epoch != 10 || p.Token[0] != 99 {
		t.Errorf("%+v", p)
	}
	c.send(attach.Got{})
	if m := c.pull(); len(m.Entries) != 1 {
		t.Errorf("%+v", m)
	}
	c.sock.Close()
	rings.awaitLeft(99)
	if !slices.Equal(rings.adopts, []attach.Adopt{q}) {
		t.Errorf("adopted %+v", rings.adopts)
	}
}

func TestRefusalsSayWhy(t *testing.T) {
	_, rings, path := start(t, nil)
	c := dial(t, path)
	c.send(attach.Attach{Role: attach.Producer, Name: "/other"})
	if e := c.refused(reason.RingNotFound); e.Status != uint32(unix.ENOENT) || !strings.Contains(e.Text, "no such ring") {
		t.Errorf("%+v", e)
	}
	c = dial(t, path)
	memory := memfd("mine")
	defer memory.Close()
	c.send(attach.Adopt{Role: attach.Producer, Name: "/other"}, memory)
	c.refused(reason.RingNotFound)
	rings.awaitNobody()
}

// A defect's detail is for the log alone.
func TestInternalErrorsAreNotShown(t *testing.T) {
	_, rings, path := start(t, nil)
	rings.delay(func(context.Context) error { return fmt.Errorf("secret detail") })
	c := dial(t, path)
	c.send(attach.Attach{Role: attach.Producer, Name: "/ring"})
	if e := c.refused(reason.Internal); strings.Contains(e.Text, "secret") || e.Status != uint32(unix.EPROTO) {
		t.Errorf("%+v", e)
	}
}

func TestRequestsOutOfOrderEndTheConnection(t *testing.T) {
	_, rings, path := start(t, nil)
	attaches := attach.Attach{Role: attach.Producer, Name: "/ring"}
	adopts := attach.Adopt{Role: attach.Producer, Name: "/ring", MemberID: 77}
	steps := map[string]func(client){
		"connected": func(client) {},
		"joining": func(c client) {
			c.send(attaches)
			expect[attach.Memory](c)
		},
		"taken": func(c client) {
			c.send(attaches)
			expect[attach.Memory](c)
			c.send(attach.Got{})
		},
		"attached": func(c client) {
			c.send(attaches)
			expect[attach.Memory](c)
			c.send(attach.Got{})
			c.send(attach.Ready{})
			expect[attach.Attached](c)
		},
		"member": func(c client) { c.join(attach.Consumer) },
		"listed": func(c client) {
			c.join(attach.Consumer)
			c.send(attach.Pull{})
			expect[attach.Members](c)
		},
	}
	allowed := map[string][]attach.Kind{
		"connected": {attach.KindAttach, attach.KindAdopt}, "joining": {attach.KindGot}, "taken": {attach.KindReady},
		"attached": {attach.KindGot}, "member": {attach.KindPull, attach.KindDetach}, "listed": {attach.KindGot},
	}
	for state, reach := range steps {
		for _, p := range []attach.Request{attaches, attach.Ready{}, attach.Pull{}, attach.Got{}, attach.Detach{}, adopts} {
			if slices.Contains(allowed[state], p.Kind()) {
				continue
			}
			c := dial(t, path)
			reach(c)
			b, err := attach.Encode(p) // ADOPT goes without its descriptor, which would be the first thing to complain about
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.sock.Write(b); err != nil {
				t.Fatal(err)
			}
			e := expect[attach.ErrorReply](c)
			if e.Status != uint32(unix.EPROTO) {
				t.Errorf("%s when %s: %+v", p.Kind(), state, e)
			}
			c.hungUp()
		}
	}
	rings.awaitNobody()
}

func TestWhoDoesNotAttachIsDropped(t *testing.T) {
	_, _, path := start(t, func(s *Server) { s.times.hello = 5 * time.Millisecond })
	for range 20 {
		c := dial(t, path)
		if e := c.refused(reason.TimedOut); !strings.Contains(e.Text, "ATTACH or ADOPT") {
			t.Errorf("without ATTACH: %+v", e)
		}
	}
}

func TestSilentPeersAreDropped(t *testing.T) {
	_, rings, path := start(t, func(s *Server) { s.times.got, s.times.ready = 500*time.Millisecond, 500*time.Millisecond })
	member := dial(t, path)
	member.join(attach.Producer)
	for what, silent := range map[string]func(client){
		"GOT": func(c client) {
			c.send(attach.Attach{Role: attach.Producer, Name: "/ring"})
			expect[attach.Memory](c)
		},
		"READY": func(c client) {
			c.send(attach.Attach{Role: attach.Producer, Name: "/ring"})
			expect[attach.Memory](c)
			c.send(attach.Got{})
		},
		"GOT ": func(c client) {
			c.join(attach.Consumer)
			c.send(attach.Pull{})
			expect[attach.Members](c)
		},
	} {
		c := dial(t, path)
		silent(c)
		if e := c.refused(reason.TimedOut); !strings.Contains(e.Text, strings.TrimSpace(what)) {
			t.Errorf("without %s: %+v", what, e)
		}
	}
	// A member may be silent for longer than all that took.
	if m := member.pull(); len(m.Entries) != 1 {
		t.Errorf("%+v", m)
	}
	rings.await(func() bool { return len(rings.members) == 1 })
}

func TestAMemberWhoseRingIsGoneIsToldOrDropped(t *testing.T) {
	_, rings, path := start(t, func(s *Server) { s.times.got = 200 * time.Millisecond })
	asks, sleeps := dial(t, path), dial(t, path)
	asking, sleeping := asks.join(attach.Producer), sleeps.join(attach.Consumer)
	rings.remove(asking)
	rings.remove(sleeping)
	asks.send(attach.Pull{})
	if e := asks.refused(reason.RingDeleted); e.Status != uint32(unix.EIDRM) {
		t.Errorf("%+v", e)
	}
	sleeps.hungUpAfterReplies()
	rings.awaitNobody()
}
