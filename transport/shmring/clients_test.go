package shmring

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/zap/zaptest"
	"golang.org/x/sys/unix"

	"github.com/ipcd/ipcd/internal/attach"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/quota"
	"github.com/ipcd/ipcd/internal/reason"
	"github.com/ipcd/ipcd/internal/shm"
)

// rename gives this process another name, until the test ends.
func rename(t *testing.T, name string) {
	t.Helper()
	comm := fmt.Sprintf("/proc/%d/comm", os.Getpid())
	before, err := os.ReadFile(comm)
	if err == nil {
		err = os.WriteFile(comm, []byte(name), 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(comm, before[:len(before)-1], 0); err != nil {
			t.Error(err)
		}
	})
}

func TestClientsAreThoseConnected(t *testing.T) {
	s, rings, path := start(t, nil)
	if all := s.Clients(); len(all) != 0 {
		t.Errorf("%+v", all)
	}
	rename(t, "a\x1b[2J\xff\u202e\"b\n")
	quiet, writes, reads := dial(t, path), dial(t, path), dial(t, path)
	producer, consumer := writes.join(attach.Producer), reads.join(attach.Consumer)
	reads.pull()
	if !look(func() bool { all := s.Clients(); return len(all) == 3 && all[2].CallsTotal == 6 }) { // ATTACH, GOT, READY, GOT, MEMBERS, GOT
		t.Fatalf("%+v", s.Clients())
	}
	all := s.Clients()
	for i, c := range all {
		if c.ID != uint64(i+1) || c.Door != "attach" || c.Who.PID != int32(os.Getpid()) || c.Who.UID != uint32(os.Getuid()) || c.Connected.IsZero() {
			t.Errorf("%d: %+v", i, c)
		}
		if want := `a\x1b[2J\xff\u202e"b\n`; c.Command != want {
			t.Errorf("the command is %q, want %q", c.Command, want)
		}
	}
	if len(all[0].Uses) != 0 {
		t.Errorf("it has not asked for anything: %+v", all[0].Uses)
	}
	for i, want := range map[int]string{1: fmt.Sprint("produce /ring ", 100+producer), 2: fmt.Sprint("consume /ring ", 100+consumer)} {
		if u := all[i].Uses; len(u) != 1 || fmt.Sprint(u[0].Method, " ", u[0].Name, " ", u[0].Behind) != want || u[0].Since.Before(all[i].Connected) {
			t.Errorf("%+v, want %s", u, want)
		}
	}
	for _, c := range []client{quiet, writes, reads} {
		c.sock.Close()
	}
	rings.awaitNobody()
	settle(t, s)
	if all := s.Clients(); len(all) != 0 {
		t.Errorf("after they have gone: %+v", all)
	}
}

func TestClientsShowHowFarBehindTheyAre(t *testing.T) {
	s, r, path := startReal(t, t.TempDir())
	joinReal(t, path, attach.Consumer)
	c := joinReal(t, path, attach.Consumer)
	if _, _, err := r.Publish(context.Background(), root, "/ring", []shm.Message{{Type: 1}, {Type: 2}, {Type: 3}}); err != nil {
		t.Fatal(err)
	}
	reader := c.reader()
	behind := func(want uint64) {
		t.Helper()
		if n := s.Clients()[1].Uses[0].Behind; n != want {
			t.Errorf("behind by %d, want %d", n, want)
		}
	}
	behind(3)
	if n := s.Clients()[0].Uses[0].Behind; n != 3 {
		t.Errorf("behind by %d in a lane that it has not taken up yet, want 3", n)
	}
	into := make([]shm.Message, 10)
	if n, err := reader.NextBatch(context.Background(), into); n != 3 || err != nil {
		t.Fatal(n, err)
	}
	if _, ok, err := reader.TryNext(); ok || err != nil { // with nothing to read it shows what it has read
		t.Fatal(ok, err)
	}
	behind(0)
	if _, _, err := r.Publish(context.Background(), root, "/ring", []shm.Message{{Type: 4}, {Type: 5}}); err != nil {
		t.Fatal(err)
	}
	behind(2)
}

func TestConnectionsAreChargedToTheQuota(t *testing.T) {
	const others = limits.QuotaOperatorMin // which root has, whatever the quota
	me := identity.User(uint32(os.Getuid()))
	quotas := quota.New(1<<31, quota.Config{Of: map[identity.Principal]quota.Limits{me: {quota.Connections: others + 2}}})
	quotas.Add(me, quota.Connections, others)
	rings := newFakeRings(t)
	s := New(Options{Rings: rings, Quotas: quotas, Logger: zaptest.NewLogger(t)})
	path := serveOn(t, s, nil)
	first, second := dial(t, path), dial(t, path)
	first.join(attach.Consumer)
	second.join(attach.Consumer)
	for range 10 {
		if e := dial(t, path).refused(reason.QuotaExceeded); e.Status != uint32(unix.EDQUOT) {
			t.Errorf("%+v", e)
		}
	}
	if n := s.Connections(); n != 2 {
		t.Errorf("%d connections", n)
	}
	if n := quotas.Account(me).Used(quota.Connections) - others; n != 2 {
		t.Errorf("%d are charged", n)
	}
	second.sock.Close()
	settleTo(t, s, 1)
	dial(t, path).join(attach.Producer)
	first.sock.Close()
	rings.await(func() bool { return len(rings.members) == 1 })
	settleTo(t, s, 1)
	if n := quotas.Account(me).Used(quota.Connections) - others; n != 1 {
		t.Errorf("%d are charged", n)
	}
}

func TestSocketOfTheServiceManagerStays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "attach.sock")
	managers, err := net.ListenUnix(attach.Network, &net.UnixAddr{Name: path, Net: attach.Network})
	if err != nil {
		t.Fatal(err)
	}
	defer managers.Close()
	if err := os.Chmod(path, 0o620); err != nil {
		t.Fatal(err)
	}
	for run := range 2 { // two daemons, one after the other
		f, err := managers.File()
		if err != nil {
			t.Fatal(err)
		}
		given, err := net.FileListener(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		l := Adopt(given.(*net.UnixListener))
		if l.Path() != path {
			t.Errorf("it listens at %q", l.Path())
		}
		waits := dial(t, path) // before anybody serves
		s := New(Options{Rings: newFakeRings(t), Logger: zaptest.NewLogger(t)})
		served := make(chan error, 1)
		go func() { served <- s.Serve(l) }()
		waits.join(attach.Producer)
		s.Stop()
		if err := <-served; err != nil {
			t.Errorf("run %d: %v", run, err)
		}
		if info, err := os.Lstat(path); err != nil || info.Mode().Perm() != 0o620 {
			t.Errorf("run %d: %v, %v", run, info, err)
		}
	}
}
