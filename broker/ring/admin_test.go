package ring

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipcd/ipcd/internal/access"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
)

func TestRingHasDefaults(t *testing.T) {
	w := newWorld(t, Options{Memory: 4 << 30, MemoryPerUID: 4 << 30})
	i := w.create(bob, "/r", func(*Settings) error { return nil })
	want := Settings{Capacity: 32 << 20, MaxMessage: 8<<20 - 32, Policy: Overwrite, OwnerUID: 1001, GroupGID: 101, Mode: 0o600, Retain: 32 << 20, Stall: time.Second}
	if i.Settings != want || i.Name != "/r" || i.ID != 1 || time.Since(i.Created) > time.Hour || i.Bytes != 0 {
		t.Errorf("%+v", i)
	}
	i = w.create(bob, "/large", func(s *Settings) error { s.Capacity = 1 << 30; return nil })
	if i.Settings.MaxMessage != limits.MessageSizeMax || i.Settings.Retain != 1<<30 {
		t.Errorf("%+v", i.Settings)
	}
}

func TestSettingsOutsideTheLimitsAreRefused(t *testing.T) {
	w := newWorld(t, Options{Memory: 4 << 30, MemoryPerUID: 4 << 30})
	for field, edits := range map[string][]Edit{
		"capacity_bytes": {
			func(s *Settings) error { s.Capacity = 32 << 10; return nil },
			func(s *Settings) error { s.Capacity = 2 << 30; return nil },
			func(s *Settings) error { s.Capacity = 1<<20 + 32; return nil },
			func(s *Settings) error { s.Capacity = 0; return nil },
			func(s *Settings) error { s.Capacity = -1 << 20; return nil },
			func(s *Settings) error { s.Capacity = -1 << 63; return nil },
		},
		"max_message_bytes": {
			func(s *Settings) error { s.MaxMessage = -1; return nil },
			func(s *Settings) error { s.MaxMessage = s.Capacity/4 - 31; return nil },
			func(s *Settings) error { s.MaxMessage = 1 << 62; return nil },
		},
		"policy": {
			func(s *Settings) error { s.Policy = ""; return nil },
			func(s *Settings) error { s.Policy = "Lossless"; return nil },
		},
		"retain_bytes": {
			func(s *Settings) error { s.Retain = -2; return nil },
			func(s *Settings) error { s.Retain = limits.RingRetainMax + 1; return nil },
		},
		"stall": {
			func(s *Settings) error { s.Stall = 0; return nil },
			func(s *Settings) error { s.Stall = limits.RingStallMax + 1; return nil },
			func(s *Settings) error { s.Stall = -time.Second; return nil },
		},
		"mode": {func(s *Settings) error { s.Mode = 0o1777; return nil }},
	} {
		for i, edit := range edits {
			_, _, err := w.Create(context.Background(), root, "/r", edit, false)
			wants(t, err, reason.InvalidArgument, "must be")
			if got := err.(*reason.Error).Field; got != "settings."+field {
				t.Errorf("%s %d: the error is about %s", field, i, got)
			}
		}
	}
	for _, edit := range []Edit{
		func(s *Settings) error { s.Capacity, s.MaxMessage, s.Retain = 64<<10, 16<<10-32, 0; return nil },
		func(s *Settings) error {
			s.Capacity, s.MaxMessage, s.Retain = 1<<30, 1, limits.RingRetainMax
			return nil
		},
		func(s *Settings) error {
			s.Capacity, s.MaxMessage, s.Stall = 1<<30, 1<<28-32, limits.RingStallMin
			return nil
		},
	} {
		i := w.create(root, "/r", edit)
		if err := i.Settings.geometry().Check(); err != nil {
			t.Errorf("%+v: %v", i.Settings, err)
		}
		if got := i.Settings.geometry().MaxPayload(); int64(got) < i.Settings.MaxMessage || int64(got) >= i.Settings.MaxMessage+32 {
			t.Errorf("%+v: frames take %d bytes", i.Settings, got)
		}
		if _, err := w.Delete(context.Background(), root, "/r"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestNamesAreThoseOfQueues(t *testing.T) {
	w := newWorld(t, Options{})
	long := "/" + strings.Repeat("x", limits.NameLength)
	for _, name := range []string{"", "/", "r", "/.r", "/a/b", "/a b", "/ä", "/a\x00", long + "x"} {
		_, _, err := w.Create(context.Background(), alice, name, small, false)
		wants(t, err, reason.InvalidArgument, "ring name")
	}
	w.create(alice, long, small)
}

func TestCreatingAgainIsNoErrorIfNothingDiffers(t *testing.T) {
	w := newWorld(t, Options{})
	ctx := context.Background()
	first := w.create(alice, "/r", small)
	again, created, err := w.Create(ctx, bob, "/r", small, false)
	if err != nil || created || again.ID != first.ID || again.Settings != first.Settings {
		t.Errorf("%+v, created %v, %v", again, created, err)
	}
	_, _, err = w.Create(ctx, alice, "/r", small, true)
	wants(t, err, reason.RingExists)
	_, _, err = w.Create(ctx, alice, "/r", func(s *Settings) error { s.Stall = 2 * time.Second; return smallLossless(s) }, false)
	wants(t, err, reason.RingExists, "policy is overwrite, not lossless", "stall is 1s, not 2s")
	_, _, err = w.Create(ctx, alice, "/r", func(s *Settings) error { s.Mode = 0o10000; return nil }, false)
	wants(t, err, reason.InvalidArgument)
	failed := fmt.Errorf("no")
	if _, _, err = w.Create(ctx, alice, "/s", func(*Settings) error { return failed }, false); err != failed {
		t.Errorf("the edit's error became %v", err)
	}
	if _, err := w.Update(ctx, alice, "/r", func(s *Settings) error { s.Mode = 0o600; return nil }); err != nil {
		t.Fatal(err)
	}
	_, _, err = w.Create(ctx, bob, "/r", small, false) // not even whether it is the same may be told
	wants(t, err, reason.AccessDenied)
}

func TestWhoMayMakeAndGiveAway(t *testing.T) {
	w := newWorld(t, Options{Access: access.New(access.Policy{DaemonUID: 77}, nil)})
	ctx := context.Background()
	daemon := identity.Identity{Kind: identity.Unix, UID: 77, GID: 77}
	_, _, err := w.Create(ctx, nemo, "/r", small, false)
	wants(t, err, reason.AccessDenied, "anonymous")
	give := func(uid, gid uint32) Edit {
		return func(s *Settings) error { s.OwnerUID, s.GroupGID = uid, gid; return nil }
	}
	_, _, err = w.Create(ctx, alice, "/r", give(1001, 100), false)
	wants(t, err, reason.AccessDenied, "owner_uid 1001")
	_, _, err = w.Create(ctx, alice, "/r", give(1000, 7), false)
	wants(t, err, reason.AccessDenied, "group_gid 7")
	w.create(bob, "/bob", give(1001, 7))
	w.create(daemon, "/given", give(1000, 4))
	_, err = w.Update(ctx, alice, "/given", func(s *Settings) error { s.Mode = 0o660; return nil }) // the group stays, although she is not in it
	if err != nil {
		t.Error(err)
	}
	_, err = w.Update(ctx, alice, "/given", give(1001, 4))
	wants(t, err, reason.AccessDenied)
	for _, id := range []identity.Identity{bob, nemo} {
		_, err = w.Update(ctx, id, "/given", func(*Settings) error { return nil })
		wants(t, err, reason.AccessDenied)
		_, err = w.Delete(ctx, id, "/given")
		wants(t, err, reason.AccessDenied)
	}
	if _, err := w.Update(ctx, root, "/given", give(1001, 101)); err != nil {
		t.Error(err)
	}
	if _, err := w.Delete(ctx, bob, "/given"); err != nil {
		t.Error(err)
	}
	_, err = w.Delete(ctx, bob, "/given")
	wants(t, err, reason.RingNotFound)
}

func TestModeIsTakenAsItIs(t *testing.T) {
	w := newWorld(t, Options{})
	for _, mode := range []uint32{0, 0o777, 0o222, 0o600} {
		name := fmt.Sprintf("/r%o", mode)
		if i := w.create(alice, name, func(s *Settings) error { s.Mode = mode; return nil }); i.Settings.Mode != mode {
			t.Errorf("asked for %#o, got %#o", mode, i.Settings.Mode)
		}
	}
}

func TestShapeAndPolicyNeverChange(t *testing.T) {
	w := newWorld(t, Options{})
	before := w.create(alice, "/r", small)
	for field, edit := range map[string]Edit{
		"capacity_bytes":    func(s *Settings) error { s.Capacity *= 2; return nil },
		"max_message_bytes": func(s *Settings) error { s.MaxMessage--; return nil },
		"policy":            func(s *Settings) error { s.Policy = Lossless; return nil },
	} {
		_, err := w.Update(context.Background(), alice, "/r", edit)
		wants(t, err, reason.InvalidArgument, field+" can not be changed")
	}
	after, err := w.Update(context.Background(), alice, "/r", func(s *Settings) error {
		s.Mode, s.Retain, s.Stall = 0o640, 0, 2*time.Second
		return nil
	})
	want := before.Settings
	want.Mode, want.Retain, want.Stall = 0o640, 0, 2*time.Second
	if err != nil || after.Settings != want || w.info("/r").Settings != want {
		t.Errorf("%+v, %v", after, err)
	}
	if p := w.producer(alice, "/r"); p.header.Stall != 2*time.Second {
		t.Errorf("a new lane's stall is %v", p.header.Stall)
	}
}

func TestListShowsWhatMayBeLookedAt(t *testing.T) {
	w := newWorld(t, Options{})
	for name, mode := range map[string]uint32{"/b": 0o604, "/a.1": 0o600, "/a.2": 0o644, "/c": 0o602} {
		w.create(alice, name, func(s *Settings) error { s.Mode = mode; return nil })
	}
	for _, c := range []struct {
		id   identity.Identity
		glob string
		want []string
	}{
		{alice, "", []string{"/a.1", "/a.2", "/b", "/c"}},
		{root, "a.*", []string{"/a.1", "/a.2"}},
		{bob, "", []string{"/a.2", "/b"}},
		{bob, "x", nil},
		{nemo, "", nil}, // bits are of local users
	} {
		all, err := w.List(context.Background(), c.id, c.glob)
		var names []string
		for _, i := range all {
			names = append(names, i.Name)
		}
		if err != nil || !slices.Equal(names, c.want) {
			t.Errorf("%v, %q: %v, %v, want %v", c.id, c.glob, names, err, c.want)
		}
	}
	_, err := w.List(context.Background(), alice, "[")
	wants(t, err, reason.InvalidArgument)
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := w.List(ended, alice, ""); err != context.Canceled {
		t.Error(err)
	}
	_, err = w.Get(context.Background(), bob, "/c")
	wants(t, err, reason.AccessDenied, "look at it")
}

func TestStoppingRefusesChanges(t *testing.T) {
	w := newWorld(t, Options{})
	ctx := context.Background()
	w.create(alice, "/r", small)
	w.Stop()
	_, _, err := w.Create(ctx, alice, "/s", small, false)
	wants(t, err, reason.ShuttingDown)
	_, err = w.Update(ctx, alice, "/r", small)
	wants(t, err, reason.ShuttingDown)
	_, err = w.Delete(ctx, alice, "/r")
	wants(t, err, reason.ShuttingDown)
	_, err = w.Attach(ctx, alice, AttachRequest{Name: "/r", Role: Producer})
	wants(t, err, reason.ShuttingDown)
	_, err = w.Subscribe(ctx, alice, "/r", SubscribeOptions{})
	wants(t, err, reason.ShuttingDown)
	if _, err := w.Get(ctx, alice, "/r"); err != nil {
		t.Error(err) // looking still works
	}
}
