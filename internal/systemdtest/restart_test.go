//go:build linux

package systemdtest

import (
	"strconv"
	"strings"
	"testing"
)

// queue makes a queue that the group jobs may use.
func (m *machine) queue(name string) {
	m.t.Helper()
	m.run("ipcctl", "create", name, "--mode", "0660", "--mqueue", "none")
	m.run("ipcctl", "chown", "root:jobs", name)
}

func TestRestartsUnderLoadLoseAndRepeatNothing(t *testing.T) {
	m := boot(t)
	m.install(newVersion)
	m.queue("/load")
	p := m.launch("alice", "queue", "/load")
	for range 5 {
		p.goesOn()
		m.run("systemctl", "restart", "ipcd.service")
		p.goesOn()
	}
	p.stopQueue()
	if restarts := m.property("ipcd.service", "NRestarts"); restarts != "0" {
		t.Errorf("systemd had to start the daemon again %s times", restarts)
	}
}

func TestUpgradeAndDowngradeWithClientsConnected(t *testing.T) {
	m := boot(t)
	m.install(oldVersion)
	m.queue("/load")
	m.run("ipcctl", "create", "/kept", "--mqueue", "none")
	m.run("ipcctl", "send", "/kept", "hello")
	m.run("ipcctl", "ring", "create", "/r", "--mode", "0666", "--policy", "lossless", "--stall", "10s")
	load, ring := m.launch("alice", "queue", "/load"), m.launch("mallory", "ring", "/r")
	for _, version := range []string{newVersion, oldVersion, newVersion} {
		m.install(version)
		if info := m.run("ipcctl", "info"); !strings.Contains(info, version) {
			t.Errorf("after the installation of %s the daemon says:\n%s", version, info)
		}
		load.goesOn()
		ring.goesOn()
	}
	load.stopQueue()
	ring.stopRing()
	if got := m.run("ipcctl", "recv", "/kept", "--ack", "-o", "raw"); got != "hello\n" {
		t.Errorf("the old message is now %q", got)
	}
}

// stopRing ends a program that uses a ring, and says what it missed.
func (p *program) stopRing() {
	p.t.Helper()
	var r ringReport
	p.stop(&r)
	progress("%s: %d messages published, %d received", p.t.Name(), r.Published, r.Received)
	if r.Published == 0 || r.Received != r.Published || r.Lost != 0 {
		p.t.Errorf("of %d messages published %d were received, and %d lost", r.Published, r.Received, r.Lost)
	}
}

func TestRingsGoOnThroughRestartsAndCrashes(t *testing.T) {
	m := boot(t)
	m.install(newVersion)
	m.run("ipcctl", "ring", "create", "/live", "--mode", "0666", "--policy", "lossless", "--stall", "10s")
	m.run("ipcctl", "ring", "create", "/kept", "--mode", "0666", "--policy", "lossless", "--retain", "128MiB")
	p := m.launch("alice", "ring", "/live")

	// A lane whose producer has left, and one of the daemon's own: nobody but the service manager can bring them back.
	gone := m.launch("mallory", "ring", "/kept")
	gone.goesOn()
	var left ringReport
	gone.stop(&left)
	m.run("ipcctl", "ring", "pub", "/kept", "--type", "2", "from the shell")
	kept := func(when string) {
		t.Helper()
		count := strconv.FormatUint(left.Published, 10)
		got := m.run("ipcctl", "ring", "sub", "/kept", "--from", "oldest", "--type", "1", "-n", count, "--timeout", "30s", "-o", "raw")
		if lines := strings.Count(got, "tick\n"); uint64(lines) != left.Published {
			t.Errorf("%s: of a producer that has left there are %d messages, want %d", when, lines, left.Published)
		}
		if got := m.run("ipcctl", "ring", "sub", "/kept", "--from", "oldest", "--type", "2", "-n", "1", "--timeout", "30s", "-o", "raw"); got != "from the shell\n" {
			t.Errorf("%s: of what went through the daemon there is %q", when, got)
		}
	}
	kept("before")

	for _, how := range [][]string{{"restart"}, {"kill", "--kill-whom=main", "--signal=KILL"}, {"restart"}} {
		before := m.property("ipcd.service", "MainPID")
		m.run(append(append([]string{"systemctl"}, how...), "ipcd.service")...)
		eventually(t, "another daemon is there", func() bool {
			now := m.property("ipcd.service", "MainPID")
			return now != before && now != "0" && m.property("ipcd.service", "ActiveState") == "active"
		})
		p.goesOn()
		kept("after " + strings.Join(how, " "))
	}
	p.stopRing()
}

func TestStopEndsWithTheSocketsInPlace(t *testing.T) {
	m := boot(t)
	m.install(newVersion)
	held := m.launch("alice", "hold", "x")
	m.run("systemctl", "stop", "ipcd.socket", "ipcd.service")
	if result := m.property("ipcd.service", "Result"); result != "success" {
		t.Errorf("the stop was no %s", result)
	}
	if r := m.try("ls", "/run/ipcd/ipcd.sock"); r.exit == 0 {
		t.Error("the socket's file is still there")
	}
	if r := m.try("ipcctl", "info", "--timeout", "2s"); r.exit != 4 {
		t.Errorf("a call without a daemon: exit %d, want 4: %s", r.exit, r.output)
	}
	held.stop(new(string))
	m.run("systemctl", "start", "ipcd.service")
	m.run("ipcctl", "info")
}
