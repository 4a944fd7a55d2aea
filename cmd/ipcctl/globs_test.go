package main

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
)

func TestPatternsNameAllQueuesThatMatchEachOnce(t *testing.T) {
	f := startFake(t)
	for _, name := range []string{"/jobs.a", "/jobs.b", "/mail"} {
		f.add(name, "x")
	}
	f.ctl(t, "", "pause", "jobs.*", "/jobs.a", "mail", "jobs.[b]").want(t, 0, "", "paused /jobs.a\npaused /jobs.b\npaused /mail\n")
	f.ctl(t, "", "kick", "/jobs.*", "--dry-run").want(t, 0, "would kick 0 messages in /jobs.a\nwould kick 0 messages in /jobs.b\n", "")
	f.ctl(t, "", "update", "jobs.*", "--lease", "1m").want(t, 0, "", "updated /jobs.a\nupdated /jobs.b\n")
	if r := f.ctl(t, "", "stat", "*", "-o", "json"); r.exit != 0 || strings.Count(r.out, `{"name":"/`) != 3 {
		t.Errorf("exit %d, stdout:\n%s", r.exit, r.out)
	}
	f.ctl(t, "", "pause", "none*").want(t, 3, "", "ipcctl: no queue that you may look at matches \"none*\"\n")
	f.ctl(t, "", "pause", "[").want(t, 2, "", "ipcctl: \"[\" is no pattern: write * for any text, ? for one character, [a-z] for some\n")
}

func TestRemovingByPatternAsksOnceOrNeedsForce(t *testing.T) {
	f := startFake(t)
	for _, name := range []string{"/t.a", "/t.b", "/keep"} {
		f.add(name, "x", "y")
	}
	f.ctl(t, "", "rm", "t.*").want(t, 2, "", "ipcctl: refusing to delete 2 queues with 4 messages without --force, for there is no terminal to ask on\n")
	f.ctl(t, "", "purge", "t.*").want(t, 2, "", "ipcctl: refusing to remove 4 messages from 2 queues without --force, for there is no terminal to ask on\n")
	f.ctl(t, "", "rm", "t.*", "--dry-run").want(t, 0, "would delete /t.a with 2 messages\nwould delete /t.b with 2 messages\n", "")
	f.ctl(t, "", "purge", "t.*", "--force").want(t, 0, "", "removed 2 messages from /t.a\nremoved 2 messages from /t.b\n")
	f.ctl(t, "", "purge", "t.*").want(t, 0, "", "nothing to remove from 2 queues\n")
	ask := func(answer string) (string, int) {
		var errOut bytes.Buffer
		exit := f.run(t.Context(), streams{in: strings.NewReader(answer), out: io.Discard, err: &errOut, inTTY: true, eTTY: true}, "rm", "t.*", "keep")
		return errOut.String(), exit
	}
	if said, exit := ask("n\n"); exit != 1 || len(f.queues) != 3 || said != "Delete 3 queues with 2 messages? [y/N] left alone\n" {
		t.Errorf("exit %d, said %q", exit, said)
	}
	if _, exit := ask("y\n"); exit != 0 || len(f.queues) != 0 {
		t.Errorf("exit %d, left %d queues", exit, len(f.queues))
	}
}

func TestThousandsOfQueuesGoOnAfterFailuresInTheirOrder(t *testing.T) {
	f := startFake(t)
	var want strings.Builder
	for i := range 2000 {
		name := fmt.Sprintf("/q%04d", i)
		f.add(name)
		if i%500 == 7 {
			f.failWith[name] = refuse(reason.AccessDenied, "the mode is 0600")
			fmt.Fprintf(&want, "ipcctl: %s: the mode is 0600\n", name)
			continue
		}
		fmt.Fprintf(&want, "deleted %s with 0 messages\n", name)
	}
	f.ctl(t, "", "rm", "q*", "--force").want(t, 5, "", want.String())
	if len(f.queues) != 4 {
		t.Errorf("%d queues are left, want the 4 that failed", len(f.queues))
	}
}

func TestPatternThatMatchesMoreThanOneReceiveTakesIsRefused(t *testing.T) {
	f := startFake(t)
	for i := range limits.ReceiveQueues + 1 {
		f.add(fmt.Sprintf("/many.%d", i))
	}
	for args, want := range map[string]string{
		"recv many.*":         "ipcctl: 257 queues: recv takes up to 256 at once; name fewer\n",
		"work many.* -- true": "ipcctl: 257 queues: work takes up to 256 at once; name fewer\n",
	} {
		if r := f.ctl(t, "", strings.Fields(args)...); r.exit != 2 || !strings.HasSuffix(r.err, want) {
			t.Errorf("%s: exit %d, stderr %s", args, r.exit, r.err)
		}
	}
}
