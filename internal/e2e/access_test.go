//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/ipcd/ipcd/client"
)

// A user and a group that no host gives to anybody: nothing is looked up by name.
const (
	strangerUID = 64001
	strangerGID = 64002
	sharedGID   = 64003
)

// as runs a program as the stranger, with these supplementary groups, from the root directory.
func (d *daemon) as(t *testing.T, groups []uint32, program string, arguments ...string) result {
	t.Helper()
	cmd := d.command(within(t), program, arguments...)
	cmd.Dir = "/"
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: strangerUID, Gid: strangerGID, Groups: groups}
	return finish(t, cmd)
}

func needsRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can run programs as another user")
	}
}

func TestModeDecidesByUIDAndGroup(t *testing.T) {
	t.Parallel()
	needsRoot(t)
	d := start(t)
	c := d.dial(t)
	for _, test := range []struct {
		mode                uint32
		groups              []uint32
		look, send, receive bool
	}{
		{0o600, nil, false, false, false},
		{0o600, []uint32{sharedGID}, false, false, false},
		{0o660, nil, false, false, false},
		{0o660, []uint32{sharedGID}, true, true, true},
		{0o640, []uint32{sharedGID}, true, false, false},
		{0o620, []uint32{sharedGID}, false, true, false},
		{0o666, nil, true, true, true},
		{0o606, []uint32{sharedGID}, false, false, false}, // the group's bits, and not the others', as for a file
		{0o602, nil, false, true, false},
		{0o604, nil, true, false, false},
	} {
		t.Run(fmt.Sprintf("%#o %v", test.mode, test.groups), func(t *testing.T) {
			q := create(t, c, memory(func(s *client.QueueSettings) { s.Mode, s.GroupGID = new(test.mode), new(uint32(sharedGID)) }))
			send(t, q, text("m")...)
			for _, try := range []struct {
				allowed   bool
				arguments []string
			}{
				{test.look, []string{"stat", q.Name()}},
				{test.look, []string{"peek", q.Name(), "-o", "raw"}},
				{test.send, []string{"send", q.Name(), "x"}},
				{test.receive, []string{"recv", q.Name(), "-o", "raw"}},
				{false, []string{"rm", q.Name(), "--force"}},
				{false, []string{"update", q.Name(), "--mode", "0666"}},
				{false, []string{"pause", q.Name()}},
			} {
				r := d.as(t, test.groups, "ipcctl", try.arguments...)
				if try.allowed {
					r.exits(t, 0)
				} else {
					r.exits(t, 5).says(t, fmt.Sprintf("uid %d", strangerUID), "may not", q.Name())
				}
			}
			if listed := strings.Contains(d.as(t, test.groups, "ipcctl", "ls", "-o", "name").ok(t), q.Name()); listed != test.look {
				t.Errorf("listed: %v, want %v", listed, test.look)
			}
		})
	}
}

func TestStrangersOwnTheirQueuesAlone(t *testing.T) {
	t.Parallel()
	needsRoot(t)
	d := start(t)
	name := unique()
	d.as(t, nil, "ipcctl", "create", name, "--mqueue", "none").ok(t)
	if s := info(t, d.dial(t).Queue(name)).Settings; *s.OwnerUID != strangerUID || *s.GroupGID != strangerGID || *s.Mode != 0o600 {
		t.Errorf("owner %d, group %d, mode %#o, want the creator's and 0600", *s.OwnerUID, *s.GroupGID, *s.Mode)
	}
	d.as(t, nil, "ipcctl", "send", name, "m").ok(t)
	d.as(t, nil, "ipcctl", "update", name, "--owner", "0").exits(t, 5)
	d.as(t, nil, "ipcctl", "update", name, "--group", fmt.Sprint(sharedGID)).exits(t, 5)
	d.as(t, []uint32{sharedGID}, "ipcctl", "update", name, "--group", fmt.Sprint(sharedGID), "--mode", "0660").ok(t)
	for _, foreign := range []string{"--owner=0", "--group=0"} {
		d.as(t, nil, "ipcctl", "create", unique(), "--mqueue", "none", foreign).exits(t, 5)
	}

	// A receipt is no key: who may not receive may not settle.
	mine := create(t, d.dial(t), memory())
	send(t, mine, text("secret")...)
	m := receiveOne(t, mine)
	r := d.as(t, nil, "ipcctl", "ack", string(m.Receipt))
	if r.exit == 0 || strings.Contains(r.out+r.err, "secret") {
		t.Errorf("a stranger acks: exit %d, %s", r.exit, r.err)
	}
	if err := m.Ack(within(t)); err != nil {
		t.Errorf("the stranger's ack changed something: %v", err)
	}

	// Nor is a dead-letter queue a way around a mode.
	d.as(t, nil, "ipcctl", "create", unique(), "--mqueue", "none", "--dead-letter", mine.Name()).exits(t, 5)
	d.as(t, nil, "ipcctl", "rm", name, "--force").ok(t)
}

func TestKernelQueuesFollowTheMode_S28(t *testing.T) {
	needsRoot(t)
	d := start(t)
	for _, c := range []struct {
		mode      uint32
		groups    []uint32
		send, get bool
	}{
		{0o600, nil, false, false},
		{0o660, nil, false, false},
		{0o660, []uint32{sharedGID}, true, true},
		{0o666, nil, true, true},
		{0o640, []uint32{sharedGID}, false, true},
		{0o620, []uint32{sharedGID}, true, false},
	} {
		q := doors(t, d, client.KernelBoth, func(s *client.QueueSettings) { s.Mode, s.GroupGID = new(c.mode), new(uint32(sharedGID)) })
		in := d.as(t, c.groups, "producer", q.Name(), "0", "m")
		if (in.exit == 0) != c.send {
			t.Errorf("mode %#o, groups %v: mq_send exits %d: %s", c.mode, c.groups, in.exit, in.err)
		}
		if !c.send {
			send(t, q, text("m")...)
		}
		// Opening is what the kernel checks, so there is nothing to wait for where it is denied.
		out := d.as(t, c.groups, "consumer", q.Name()+".out", "1")
		if (out.exit == 0) != c.get || c.get && out.out != "0 m\n" {
			t.Errorf("mode %#o, groups %v: mq_receive exits %d: %q %s", c.mode, c.groups, out.exit, out.out, out.err)
		}
		for name, k := range map[string]string{"in": q.Name(), "out": q.Name() + ".out"} {
			if have, err := statKernel(k); err != nil || have.gid != sharedGID {
				t.Errorf("%s: %+v, %v, want group %d", name, have, err, sharedGID)
			}
		}
		d.ctl(t, "rm", q.Name(), "--force").ok(t)
	}
}

func TestOverTCPNobodyHasMoreThanRulesGrant(t *testing.T) {
	t.Parallel()
	d := start(t)
	local := d.dial(t)
	anonymous := dial(t, d.tcp, client.WithInsecure())
	if _, err := anonymous.CreateQueue(within(t), unique()+anyone, memory()); !errors.Is(err, client.ErrAccessDenied) {
		t.Errorf("creating a queue: %v, want ACCESS_DENIED", err)
	}
	for name, allowed := range map[string]bool{unique(): false, unique() + anyone: true} {
		q := createNamed(t, local, name, memory(func(s *client.QueueSettings) { s.Mode = new(uint32(0o666)) }))
		remote := anonymous.Queue(q.Name())
		send(t, q, text("m")...)
		_, look := remote.Info(within(t))
		_, sent := remote.Send(within(t), text("x")...)
		_, received := remote.Receive(within(t), 1, client.ReceiveOptions{})
		_, paused := anonymous.PauseQueue(within(t), q.Name())
		_, deleted := anonymous.DeleteQueue(within(t), q.Name())
		for _, try := range []struct {
			what    string
			err     error
			allowed bool
		}{{"look", look, allowed}, {"send", sent, allowed}, {"receive", received, allowed}, {"pause", paused, false}, {"delete", deleted, false}} {
			if try.allowed && try.err != nil || !try.allowed && !errors.Is(try.err, client.ErrAccessDenied) {
				t.Errorf("%s: %s: %v, allowed %v", name, try.what, try.err, try.allowed)
			}
		}
	}
	d.ctl(t, "--address", d.tcp, "ls").exits(t, 2).says(t, "insecure")
	d.ctl(t, "--address", d.tcp, "--insecure", "create", unique()).exits(t, 5)
}
