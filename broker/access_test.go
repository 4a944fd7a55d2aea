package broker

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/access"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/reason"
)

var (
	billing  = identity.Identity{Kind: identity.Certificate, Name: "spiffe://example.org/billing"}
	asAlice  = identity.Identity{Kind: identity.Certificate, Name: "CN=alice", Mapped: true, UID: alice.UID, GID: alice.GID}
	operator = identity.Identity{Kind: identity.Unix, UID: 1002, GID: 102, Groups: []uint32{27}}
)

func withPolicy(p access.Policy) func() Options {
	return func() Options { return Options{Access: access.New(p, nil)} }
}

func peek(w *world, id identity.Identity, name string) error {
	_, err := w.Peek(w.ctx, id, PeekRequest{Queue: name, Max: 1})
	return err
}

func TestWhoIsNoLocalUserHasOnlyWhatRulesGrant(t *testing.T) {
	inFreshWorlds(t, withPolicy(access.Policy{Rules: []access.Rule{
		{Queues: []string{"open*"}, Anonymous: true, Allow: access.Send},
		{Queues: []string{"open*"}, Certificates: []string{"spiffe://example.org/*"}, Allow: access.Look | access.Receive},
	}}), func(w *world) {
		for _, name := range []string{"/open.1", "/shut"} {
			w.create(name, func(s *queue.Settings) { s.Mode = 0o666 })
		}
		one := []queue.Message{{Type: 1}}
		for _, c := range []struct {
			id   identity.Identity
			name string
			send bool
			take bool
		}{
			{nemo, "/open.1", true, false}, {nemo, "/shut", false, false},
			{billing, "/open.1", false, true}, {billing, "/shut", false, false},
			{asAlice, "/open.1", true, true}, {asAlice, "/shut", true, true},
		} {
			_, sent := w.Send(w.ctx, c.id, SendRequest{Queue: c.name, Messages: one})
			_, took := w.Receive(w.ctx, c.id, ReceiveRequest{Queue: c.name})
			looked := peek(w, c.id, c.name)
			for what, got := range map[string]error{"send": sent, "receive": took, "look": looked} {
				allowed := c.send
				if what != "send" {
					allowed = c.take
				}
				if (got == nil) != allowed || got != nil && reason.Of(got) != reason.AccessDenied {
					t.Errorf("%v: %s to %s: %v", c.id, what, c.name, got)
				}
			}
		}
		for _, id := range []identity.Identity{nemo, billing} {
			_, _, err := w.CreateQueue(w.ctx, id, "/mine", func(*queue.Settings) error { return nil }, false)
			w.wants(err, reason.AccessDenied)
		}
		info, _, err := w.CreateQueue(w.ctx, asAlice, "/mine", func(*queue.Settings) error { return nil }, false)
		if err != nil || info.Settings.OwnerUID != alice.UID {
			t.Errorf("a certificate that acts as alice made %+v, %v", info.Settings, err)
		}
	})
}

func TestRuleLetsAGroupManageWhatIsNotItsOwn(t *testing.T) {
	inFreshWorlds(t, withPolicy(access.Policy{Rules: []access.Rule{{Queues: []string{"jobs"}, Groups: []uint32{7}, Allow: access.Manage}}}), func(w *world) {
		w.create("/jobs")
		w.create("/other")
		_, err := w.PauseQueue(w.ctx, bob, "/jobs", true)
		w.must(err)
		_, err = w.PauseQueue(w.ctx, bob, "/other", true)
		w.wants(err, reason.AccessDenied)
		w.wants(peek(w, bob, "/jobs"), reason.AccessDenied) // to manage is not to look
		_, err = w.UpdateQueue(w.ctx, bob, "/jobs", func(s *queue.Settings) error { s.OwnerUID = bob.UID; return nil })
		w.wants(err, reason.AccessDenied) // nor to take
	})
}

func TestGroupOfAdminsMayDoEverything(t *testing.T) {
	inFreshWorlds(t, withPolicy(access.Policy{DaemonUID: 990, AdminGroups: []uint32{27}}), func(w *world) {
		w.create("/a", func(s *queue.Settings) { s.Mode = 0 })
		for _, id := range []identity.Identity{root, operator, {Kind: identity.Unix, UID: 990}} {
			w.must(peek(w, id, "/a"))
		}
		_, err := w.UpdateQueue(w.ctx, operator, "/a", func(s *queue.Settings) error { s.OwnerUID = bob.UID; return nil })
		w.must(err)
		w.wants(peek(w, alice, "/a"), reason.AccessDenied)
		w.wants(w.Backup(w.ctx, bob, nil), reason.AccessDenied)
	})
}

func TestChangedPolicyEndsWhatIsOpen(t *testing.T) {
	grant := access.Policy{Rules: []access.Rule{{Queues: []string{"*"}, Users: []uint32{bob.UID}, Allow: access.Receive}}}
	inFreshWorlds(t, withPolicy(grant), func(w *world) {
		w.create("/a")
		c, err := w.Consume(w.ctx, bob, ConsumeRequest{Queue: "/a"})
		w.must(err)
		defer c.Close(true)
		w.must(c.Credit(1, 0))
		received := make(chan error, 1)
		go func() {
			_, err := w.Receive(w.ctx, bob, ReceiveRequest{Queue: "/a", Wait: time.Hour})
			received <- err
		}()
		synctest.Wait()
		w.AccessChanged() // nothing has
		w.access.Set(access.Policy{})
		w.AccessChanged()
		w.wants(<-received, reason.AccessDenied)
		_, err = c.Next(w.ctx)
		w.wants(err, reason.AccessDenied)
	})
}

func TestProbeWaitsForEveryLock(t *testing.T) {
	b := New(Options{})
	defer b.Close()
	w := &world{t, b, t.Context()}
	w.create("/a")
	w.must(w.Probe())
	s, err := w.lookup("/a")
	w.must(err)
	s.mu.Lock()
	probed := make(chan error, 1)
	go func() { probed <- w.Probe() }()
	select {
	case <-probed:
		t.Error("a lock that cannot be had was not noticed")
	default:
	}
	s.mu.Unlock()
	w.must(<-probed)
}
