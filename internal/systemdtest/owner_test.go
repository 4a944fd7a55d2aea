//go:build linux

package systemdtest

import (
	"strings"
	"testing"
)

// The daemon is not root and has CAP_CHOWN alone: still a queue that nobody else may use has native senders, its owner's programs.
func TestOwnerSendsThroughTheKernelQueue(t *testing.T) {
	m := boot(t)
	m.install(newVersion)
	m.run(as("alice", "ipcctl", "create", "/mine")...)
	if log := m.run("journalctl", "--no-pager", "-u", "ipcd.service"); strings.Contains(log, "not as declared") {
		t.Errorf("the kernel queue is not as it should be:\n%s", tail(log, 20))
	}
	if owner := m.run("stat", "--format=%U %a", "/dev/mqueue/mine"); owner != "alice 200\n" {
		t.Errorf("owner and mode of the kernel queue are %q", owner)
	}

	check := func(when string) {
		t.Helper()
		var problem string
		m.once("alice", "kernel", "/mine", &problem)
		if problem != "" {
			t.Errorf("%s: mq_open of the owner: %s\n%s", when, problem, m.run("ls", "-l", "/dev/mqueue"))
		}
		m.once("mallory", "kernel", "/mine", &problem)
		if problem != "permission denied" {
			t.Errorf("%s: mq_open of somebody else: %q, want permission denied", when, problem)
		}
		if got := m.run(as("alice", "ipcctl", "recv", "/mine", "--wait", "30s", "--ack", "-o", "raw")...); got != "native\n" {
			t.Errorf("%s: received %q", when, got)
		}
	}
	check("at first")
	for _, how := range [][]string{{"restart"}, {"kill", "--kill-whom=main", "--signal=KILL"}} {
		before := m.property("ipcd.service", "MainPID")
		m.run(append(append([]string{"systemctl"}, how...), "ipcd.service")...)
		eventually(t, "another daemon is there", func() bool {
			now := m.property("ipcd.service", "MainPID")
			return now != before && now != "0" && m.property("ipcd.service", "ActiveState") == "active"
		})
		check("after " + strings.Join(how, " "))
	}
	m.run("ipcctl", "chown", "mallory", "/mine")
	if owner := m.run("stat", "--format=%U %a", "/dev/mqueue/mine"); owner != "mallory 200\n" {
		t.Errorf("owner and mode of the kernel queue are %q after a chown", owner)
	}
	m.run("ipcctl", "chown", "alice", "/mine")
	check("after it was hers again")

	m.run(as("alice", "ipcctl", "rm", "/mine", "--force")...)
	if left := m.run("ls", "/dev/mqueue"); left != "" {
		t.Errorf("the deleted queue has left its kernel queue: %s", left)
	}
}
