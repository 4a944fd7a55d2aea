//go:build linux

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipcd/ipcd/client"
)

func TestOwnerAndModeAreChangedByIpcctl(t *testing.T) {
	t.Parallel()
	needsRoot(t)
	d := start(t)
	for _, kind := range [][]string{nil, {"ring"}} {
		ctl := func(who caller, arguments string) result {
			if who.uid == 0 {
				return d.ctl(t, slices.Concat(kind, strings.Fields(arguments))...)
			}
			return d.as(t, who.groups, "ipcctl", slices.Concat(kind, strings.Fields(arguments))...)
		}
		root, in := caller{}, stranger.in(sharedGID)
		create := "create /thing --mqueue none"
		if kind != nil {
			create = "create /thing --capacity 64KiB"
		}
		ctl(root, create).ok(t)
		for _, step := range []struct {
			who       caller
			arguments string
			exit      int
			says      string
		}{
			{stranger, "stat /thing", 5, "may not look at it"},
			{stranger, "chmod 0666 /thing", 5, "may not manage it"},
			{stranger, fmt.Sprintf("chown %d /thing", strangerUID), 5, "may not"},
			{root, "chmod 0604 /thing", 0, "0604"},
			{stranger, "stat /thing", 0, ""},
			{root, fmt.Sprintf("chown :%d /thing", sharedGID), 0, fmt.Sprint(sharedGID)},
			{in, "stat /thing", 5, "may not look at it"}, // the group's bits, and not the others'
			{root, "chmod g+r,o= /thing", 0, "0640"},
			{in, "stat /thing", 0, ""},
			{stranger, "stat /thing", 5, ""},
			{in, "chmod g+w /thing", 5, "may not manage it"}, // in the group, but not the owner
			{root, fmt.Sprintf("chown %d /thing", strangerUID), 0, ""},
			{stranger, "chmod 0600 /thing", 0, "0600"},
			{in, fmt.Sprintf("chown :%d /thing", strangerGID), 0, ""},
			{in, fmt.Sprintf("chown :%d /thing", sharedGID), 0, ""},
			{stranger, "chown :0 /thing", 5, "group"},              // an owner gives it to groups of its own only
			{stranger, "chown 0 /thing", 5, ""},                    // nor away
			{stranger, "chown no-such-user /thing", 2, "no-such-"}, // wrong is another thing than denied
			{stranger, "chmod rwx /thing", 2, "no mode"},
			{root, "chmod 0600 /thing /missing", 3, "/missing"},
			{stranger, "rm --force /thing", 0, ""},
		} {
			r := ctl(step.who, step.arguments)
			if r.exit != step.exit || !strings.Contains(r.err+r.out, step.says) {
				t.Errorf("%v%s as uid %d, groups %v: exit %d, want %d and %q:\n%s%s", kind, step.arguments, step.who.uid, step.who.groups, r.exit, step.exit, step.says, r.out, r.err)
			}
		}
	}
}

func TestKernelQueuesFollowChownAndChmod_S28(t *testing.T) {
	needsRoot(t)
	d := start(t)
	q := doors(t, d, client.KernelBoth)
	follow := func(uid, gid, in, out uint32) {
		t.Helper()
		for name, mode := range map[string]uint32{q.Name(): in, q.Name() + ".out": out} {
			eventually(t, name+" follows", func() bool {
				k, err := statKernel(name)
				return err == nil && k.uid == uid && k.gid == gid && k.mode == mode
			})
		}
	}
	before, err := statKernel(q.Name())
	if err != nil {
		t.Fatal(err)
	}
	d.ctl(t, "chown", fmt.Sprintf("%d:%d", strangerUID, sharedGID), q.Name()).ok(t)
	d.ctl(t, "chmod", "0620", q.Name()).ok(t)
	if k, err := statKernel(q.Name()); err != nil || k.uid != strangerUID || k.gid != sharedGID || k.inode != before.inode {
		t.Errorf("after chown the kernel queue is %+v, %v", k, err)
	}
	d.as(t, nil, "producer", q.Name(), "0", "owner's").ok(t)
	if r := d.as(t, nil, "consumer", q.Name()+".out", "1"); r.out != "0 owner's\n" {
		t.Errorf("the owner receives %q: %s", r.out, r.err)
	}
	d.ctl(t, "chmod", "0400", q.Name()).ok(t)
	if r := d.as(t, nil, "producer", q.Name(), "0", "m"); r.exit == 0 {
		t.Error("the owner sends although the mode does not let it")
	}
	d.ctl(t, "chmod", "0660", q.Name()).ok(t)
	k, err := statKernel(q.Name())
	if err != nil {
		t.Fatal(err)
	}
	o, err := statKernel(q.Name() + ".out")
	if err != nil {
		t.Fatal(err)
	}
	follow(strangerUID, sharedGID, k.mode, o.mode)
	d.as(t, []uint32{sharedGID}, "ipcctl", "rm", q.Name(), "--force").ok(t)
}

func TestWithdrawnModeEndsStreams(t *testing.T) {
	t.Parallel()
	needsRoot(t)
	d := start(t)
	q := createNamed(t, d.dial(t), "/q", memory(func(s *client.QueueSettings) { s.Mode = new(uint32(0o666)) }))
	ended := make(chan error, 1)
	c := d.dialAs(t, stranger)
	go func() {
		ended <- c.Queue("/q").Consume(within(t), func(context.Context, *client.Delivery) error { return nil }, client.ConsumeOptions{})
	}()
	awaitStats(t, q, "the stranger consumes", func(s client.QueueStats) bool { return s.Receivers == 1 })
	d.ctl(t, "chmod", "0660", "/q").ok(t)
	select {
	case err := <-ended:
		allowed(t, "the consumer", err, false)
	case <-time.After(patience):
		t.Fatal("it goes on")
	}
}

func TestDenialsAreLoggedWithWhoWhatAndWhy(t *testing.T) {
	t.Parallel()
	needsRoot(t)
	d := start(t)
	d.ctl(t, "create", "/denied.queue", "--mqueue", "none", "--mode", "0640").ok(t)
	d.ctl(t, "ring", "create", "/denied.ring", "--capacity", "64KiB").ok(t)
	local, remote := fmt.Sprintf("uid %d", strangerUID), "anonymous"
	_, _ = dial(t, d.tcp, client.WithInsecure()).Queue("/denied.queue").Info(within(t))
	for _, c := range []struct {
		arguments, who, what string
	}{
		{"send /denied.queue x", local, "send to it"},
		{"recv /denied.queue", local, "receive from it"},
		{"rm /denied.queue --force", local, "manage it"},
		{"ring sub /denied.ring", local, "look at it"},
		{"reload", local, "reload the configuration"},
		{"backup -", local, ""},
		{"", remote, "look at it"},
	} {
		if c.arguments != "" {
			d.as(t, nil, "ipcctl", strings.Fields(c.arguments)...).exits(t, 5)
		}
		eventually(t, fmt.Sprintf("the denial of %q to %s is in the log", c.arguments, c.who), func() bool {
			for line := range strings.Lines(d.log.String()) {
				var entry struct{ Msg, Who, Why string }
				if json.Unmarshal([]byte(line), &entry) != nil || !strings.HasPrefix(entry.Msg, "access denied to ") || !strings.HasPrefix(entry.Who, c.who) || !strings.Contains(entry.Why, "may not "+c.what) {
					continue
				}
				name := strings.Contains(c.arguments, "denied.") || c.arguments == ""
				mode := c.who == remote || strings.Contains(entry.Why, "mode 0") // whose it is concerns nobody from afar
				return !name || strings.Contains(entry.Why, "/denied.") && mode
			}
			return false
		})
	}
	if metrics := d.ctl(t, "metrics").ok(t); !strings.Contains(metrics, "\nipcd_access_denied_total ") || strings.Contains(metrics, "\nipcd_access_denied_total 0\n") {
		t.Error("denials are not counted")
	}
}
