package ring

import (
	"context"
	"testing"

	"github.com/ipcd/ipcd/internal/access"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/quota"
	"github.com/ipcd/ipcd/internal/reason"
	"github.com/ipcd/ipcd/internal/shm"
)

var (
	robot  = identity.Identity{Kind: identity.Certificate, Name: "spiffe://example.org/robot"}
	mapped = identity.Identity{Kind: identity.Certificate, Name: "spiffe://example.org/alice", Mapped: true, UID: 1000, GID: 100}
)

func TestWhoIsNoLocalUserHasWhatRulesGrant(t *testing.T) {
	for _, who := range []identity.Identity{nemo, robot} {
		control := access.New(access.Policy{}, nil)
		w := newWorld(t, Options{Access: control})
		ctx := context.Background()
		w.create(alice, "/r", small) // mode 0666
		_, _, err := w.Publish(ctx, who, "/r", messages(1))
		wants(t, err, reason.AccessDenied, "produce into it", who.String())
		_, err = w.Subscribe(ctx, who, "/r", SubscribeOptions{})
		wants(t, err, reason.AccessDenied, "look at it")
		_, err = w.Get(ctx, who, "/r")
		wants(t, err, reason.AccessDenied)

		control.Set(access.Policy{Rules: []access.Rule{{Rings: []string{"r"}, Anonymous: true, Certificates: []string{"spiffe://example.org/*"}, Allow: access.Look | access.Send}}})
		w.AccessChanged()
		if _, _, err := w.Publish(ctx, who, "/r", messages(1)); err != nil {
			t.Error(err)
		}
		s, err := w.Subscribe(ctx, who, "/r", SubscribeOptions{Start: shm.Oldest})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		s.read(t, 1)
		_, err = w.Delete(ctx, who, "/r")
		wants(t, err, reason.AccessDenied, "manage it")
		// Memory is handed to processes of this machine only.
		for _, role := range []Role{Producer, Consumer} {
			_, err = w.Attach(ctx, who, AttachRequest{Name: "/r", Role: role})
			wants(t, err, reason.AccessDenied, "no user of this machine")
		}
		_, _, err = w.Create(ctx, who, "/s", small, false)
		wants(t, err, reason.AccessDenied, "no user of this machine")

		control.Set(access.Policy{})
		w.AccessChanged()
		_, _, err = w.Publish(ctx, who, "/r", messages(1))
		wants(t, err, reason.AccessDenied)
		_, err = s.Next(ctx, make([]shm.Message, 1))
		wants(t, err, reason.AccessDenied, "any more")
	}
}

func TestMappedCertificateActsAsItsUser(t *testing.T) {
	w := newWorld(t, Options{})
	ctx := context.Background()
	i := w.create(mapped, "/r", func(s *Settings) error { s.Capacity, s.Mode = capacity, 0o600; return nil })
	if i.Settings.OwnerUID != alice.UID || i.Settings.GroupGID != alice.GID {
		t.Errorf("it belongs to uid %d, gid %d", i.Settings.OwnerUID, i.Settings.GroupGID)
	}
	if _, _, err := w.Publish(ctx, mapped, "/r", messages(1)); err != nil {
		t.Error(err)
	}
	if _, err := w.Delete(ctx, alice, "/r"); err != nil {
		t.Error(err)
	}
	w.create(root, "/root", func(s *Settings) error { s.Mode = 0; return nil })
	zero := mapped
	zero.UID, zero.GID = 0, 0
	_, err := w.Subscribe(ctx, zero, "/root", SubscribeOptions{}) // a certificate is never root
	wants(t, err, reason.AccessDenied)
}

func TestAdminGroupMayDoEverything(t *testing.T) {
	w := newWorld(t, Options{Access: access.New(access.Policy{AdminGroups: []uint32{7}}, nil)})
	ctx := context.Background()
	w.create(alice, "/r", func(s *Settings) error { s.Capacity, s.Mode = capacity, 0; return nil })
	w.producer(bob, "/r") // he is in group 7
	if _, err := w.Update(ctx, bob, "/r", func(s *Settings) error { s.OwnerUID, s.GroupGID = 5, 5; return nil }); err != nil {
		t.Error(err)
	}
	if _, err := w.Delete(ctx, bob, "/r"); err != nil {
		t.Error(err)
	}
}

func TestChangedPolicyThrowsOutWhoItGrantsNothing(t *testing.T) {
	grant := access.Policy{Rules: []access.Rule{{Rings: []string{"*"}, Users: []uint32{bob.UID}, Allow: access.Look | access.Send}}}
	control := access.New(grant, nil)
	w := newWorld(t, Options{Access: control})
	w.create(alice, "/r", func(s *Settings) error { s.Capacity, s.Mode = capacity, 0o600; return nil })
	his, hers, reads := w.producer(bob, "/r"), w.producer(alice, "/r"), w.consumer(bob, "/r")
	j, _ := w.begin(bob, AttachRequest{Name: "/r", Role: Consumer})
	w.AccessChanged() // nothing has
	if his.isGone() || reads.isGone() {
		t.Fatal("thrown out although nothing has changed")
	}
	less := grant
	less.Rules = []access.Rule{{Rings: []string{"*"}, Users: []uint32{bob.UID}, Allow: access.Send}}
	control.Set(less)
	w.AccessChanged()
	if his.isGone() || hers.isGone() || !reads.isGone() {
		t.Errorf("without look: producer gone %v, consumer gone %v", his.isGone(), reads.isGone())
	}
	wants(t, reads.Err(), reason.AccessDenied, "look at it or consume it any more")
	_, err := j.Ready()
	wants(t, err, reason.AccessDenied)
	control.Set(access.Policy{})
	w.AccessChanged()
	if !his.isGone() || hers.isGone() {
		t.Errorf("without rules: his gone %v, the owner's gone %v", his.isGone(), hers.isGone())
	}
}

func TestRingsAreChargedToTheirOwner(t *testing.T) {
	quotas := quota.New(0, quota.Config{Default: quota.Limits{quota.Rings: 2}})
	w := newWorld(t, Options{Quotas: quotas})
	ctx := context.Background()
	used := func(want int64, id identity.Identity) {
		t.Helper()
		if got := w.o.Quotas.Account(id.Principal()).Used(quota.Rings); got != want {
			t.Errorf("%v is charged %d rings, want %d", id, got, want)
		}
	}
	w.create(alice, "/a", small)
	w.create(alice, "/b", small)
	_, _, err := w.Create(ctx, alice, "/c", small, false)
	wants(t, err, reason.QuotaExceeded, "uid 1000 has 2 rings", "2")
	used(2, alice)
	if _, _, err := w.Create(ctx, alice, "/a", small, false); err != nil {
		t.Errorf("what is there costs nothing: %v", err)
	}
	give := func(to identity.Identity) Edit {
		return func(s *Settings) error { s.OwnerUID = to.UID; return nil }
	}
	if _, err := w.Update(ctx, root, "/a", give(bob)); err != nil {
		t.Fatal(err)
	}
	used(1, alice)
	used(1, bob)
	w.create(root, "/c", func(s *Settings) error { s.OwnerUID = bob.UID; return small(s) })
	if _, err := w.Update(ctx, root, "/b", give(bob)); err != nil {
		t.Errorf("quotas do not stop an admin: %v", err)
	}
	used(3, bob)
	w.o.Quotas = quota.New(0, quota.Config{Default: quota.Limits{quota.Rings: 2}})
	w.restart()
	used(3, bob) // beyond the quota, and yet all are there
	used(0, alice)
	for _, name := range []string{"/a", "/b", "/c"} {
		if _, err := w.Delete(ctx, bob, name); err != nil {
			t.Fatal(err)
		}
	}
	used(0, bob)
}
