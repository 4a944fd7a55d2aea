//go:build linux

package systemdtest

import (
	"strings"
	"testing"
)

// ipcctl's exit code for who may not.
const exitDenied = 5

func TestGroupMaySendAndOthersMayNot(t *testing.T) {
	m := boot(t)
	m.install(newVersion)
	m.run("ipcctl", "create", "/jobs", "--mode", "0660", "--mqueue", "in")
	m.run("ipcctl", "chown", "root:jobs", "/jobs")

	m.run(as("alice", "ipcctl", "send", "/jobs", "hello")...)
	if r := m.try(as("mallory", "ipcctl", "send", "/jobs", "hello")...); r.exit != exitDenied {
		t.Errorf("a send from outside the group: exit %d, want %d: %s", r.exit, exitDenied, r.output)
	}
	if log := m.run("journalctl", "--no-pager", "-u", "ipcd.service"); !strings.Contains(log, "mallory") && !strings.Contains(log, strings.TrimSpace(m.run("id", "-u", "mallory"))) {
		t.Errorf("the refusal is not in the log:\n%s", tail(log, 20))
	}

	// The same through the kernel: this is what CAP_CHOWN is for.
	var problem string
	m.once("alice", "kernel", "/jobs", &problem)
	if problem != "" {
		t.Errorf("mq_open in the group: %s\n%s", problem, m.run("ls", "-l", "/dev/mqueue"))
	}
	m.once("mallory", "kernel", "/jobs", &problem)
	if problem != "permission denied" {
		t.Errorf("mq_open from outside the group: %q, want permission denied", problem)
	}
	if got := m.run("ipcctl", "recv", "/jobs", "-n", "2", "--wait", "30s", "--ack", "-o", "raw"); !strings.Contains(got, "hello") {
		t.Errorf("received %q", got)
	}

	// After a restart the daemon opens the kernel queue again, and a crash of it is no different.
	for _, how := range [][]string{{"restart"}, {"kill", "--kill-whom=main", "--signal=KILL"}} {
		m.run(append(append([]string{"systemctl"}, how...), "ipcd.service")...)
		m.awaitState("ipcd.service", "active")
		eventually(t, "the kernel queue is served", func() bool {
			m.once("alice", "kernel", "/jobs", &problem)
			return problem == "" && m.try("ipcctl", "recv", "/jobs", "--wait", "10s", "--ack").exit == 0
		})
	}
	// What is sent while the daemon is stopped waits in the kernel queue, which RemoveIPC= would take away.
	m.run("systemctl", "stop", "ipcd.service")
	m.once("alice", "kernel", "/jobs", &problem)
	if problem != "" {
		t.Errorf("mq_open while the daemon is stopped: %s", problem)
	}
	m.run("systemctl", "start", "ipcd.service")
	if got := m.run("ipcctl", "recv", "/jobs", "--wait", "30s", "--ack", "-o", "raw"); got != "native\n" {
		t.Errorf("what was sent while the daemon was stopped came as %q", got)
	}
	m.run("ipcctl", "rm", "/jobs", "--force")
	if left := m.run("ls", "/dev/mqueue"); left != "" {
		t.Errorf("the deleted queue has left its kernel queue: %s", left)
	}
}

func TestOwnerMayUseWhatIsHis(t *testing.T) {
	m := boot(t)
	m.install(newVersion)
	m.run(as("alice", "ipcctl", "create", "/mine")...)
	m.run(as("alice", "ipcctl", "send", "/mine", "hello")...)
	if r := m.try(as("mallory", "ipcctl", "peek", "/mine")...); r.exit != exitDenied {
		t.Errorf("a look of somebody else: exit %d, want %d: %s", r.exit, exitDenied, r.output)
	}
	m.run("ipcctl", "chmod", "0666", "/mine")
	m.run(as("mallory", "ipcctl", "recv", "/mine", "--ack")...)
}

func TestAdminGroupMayDoEverything(t *testing.T) {
	m := boot(t)
	m.install(newVersion)
	m.write("/etc/ipcd/conf.d/admin.yaml", "admin_group: ipcd\n")
	if r := m.try(as("alice", "ipcctl", "reload")...); r.exit != exitDenied {
		t.Errorf("a reload by somebody: exit %d, want %d: %s", r.exit, exitDenied, r.output)
	}
	m.run("usermod", "--append", "--groups", "ipcd", "alice")
	m.run("systemctl", "reload", "ipcd.service")
	m.run(as("alice", "ipcctl", "reload")...)
	m.run("ipcctl", "create", "/roots")
	m.run(as("alice", "ipcctl", "send", "/roots", "hello")...)
}
