//go:build linux

package systemdtest

import (
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func TestReloadTakesWhatIsRightAndRefusesWhatIsWrong(t *testing.T) {
	m := boot(t)
	m.install(newVersion)
	pid := m.property("ipcd.service", "MainPID")
	m.write("/etc/ipcd/conf.d/queues.yaml", "queues:\n  /declared:\n    mode: \"0660\"\n    group: jobs\n")
	m.run("systemctl", "reload", "ipcd.service")
	m.run(as("alice", "ipcctl", "send", "/declared", "hello")...)

	m.write("/etc/ipcd/conf.d/wrong.yaml", "log_level: loud\n")
	if r := m.try("systemctl", "reload", "ipcd.service"); r.exit == 0 {
		t.Error("a reload of a wrong configuration succeeded")
	}
	if r := m.try("ipcctl", "reload"); r.exit == 0 || !strings.Contains(r.output, "wrong.yaml") || !strings.Contains(r.output, "log_level") {
		t.Errorf("a reload of a wrong configuration: exit %d, and neither file nor key in: %s", r.exit, r.output)
	}
	if r := m.try("ipcd", "check", "--config", "/etc/ipcd/ipcd.yaml"); r.exit != 2 || !strings.Contains(r.output, "wrong.yaml:1") {
		t.Errorf("ipcd check: exit %d: %s", r.exit, r.output)
	}
	// The daemon goes on with the old one.
	m.run(as("alice", "ipcctl", "send", "/declared", "hello")...)
	if state, now := m.property("ipcd.service", "ActiveState"), m.property("ipcd.service", "MainPID"); state != "active" || now != pid {
		t.Errorf("after reloads the service is %s with the pid %s, want active with %s", state, now, pid)
	}

	// A start with it fails with exit code 2, and once.
	if r := m.try("systemctl", "restart", "ipcd.service"); r.exit == 0 {
		t.Error("a start with a wrong configuration succeeded")
	}
	m.endedOnce("2")
	m.run("rm", "/etc/ipcd/conf.d/wrong.yaml")
	m.run("systemctl", "start", "ipcd.service")
	m.run(as("alice", "ipcctl", "recv", "/declared", "-n", "2", "--ack")...)
}

// endedOnce checks that the daemon ended with an exit code and was not started again for it.
func (m *machine) endedOnce(exit string) {
	m.t.Helper()
	eventually(m.t, "the service has ended", func() bool {
		state := m.property("ipcd.service", "ActiveState")
		return state == "failed" || state == "inactive"
	})
	if status, restarts := m.property("ipcd.service", "ExecMainStatus"), m.property("ipcd.service", "NRestarts"); status != exit || restarts != "0" {
		m.t.Errorf("the daemon ended with %s and was started again %s times, want %s and 0", status, restarts, exit)
	}
}

func TestWatchdogEndsADaemonThatHangs(t *testing.T) {
	m := boot(t)
	m.install(newVersion)
	m.write("/etc/systemd/system/ipcd.service.d/watchdog.conf", "[Service]\nWatchdogSec=2s\nTimeoutAbortSec=1s\n")
	m.run("systemctl", "daemon-reload")
	m.run("systemctl", "restart", "ipcd.service")
	m.queue("/load")
	p := m.launch("alice", "queue", "/load")
	m.run("kill", "-STOP", m.property("ipcd.service", "MainPID"))
	eventually(t, "the daemon was ended by the watchdog and started again", func() bool {
		return m.property("ipcd.service", "NRestarts") == "1" && m.property("ipcd.service", "ActiveState") == "active"
	})
	if log := m.run("journalctl", "--no-pager", "-u", "ipcd.service"); !strings.Contains(log, "Watchdog timeout") {
		t.Errorf("the log does not name the watchdog:\n%s", tail(log, 20))
	}
	p.goesOn()
	// After a crash what was out comes again: that is no fault here.
	var r queueReport
	p.stop(&r)
	if len(r.Lost) > 0 || len(r.Unexpected) > 0 {
		t.Errorf("lost %.10q, never sent %.10q", r.Lost, r.Unexpected)
	}
}

func TestDamagedJournalEndsInNoLoop(t *testing.T) {
	m := boot(t)
	m.install(newVersion)
	m.run("ipcctl", "create", "/rotten", "--mqueue", "none")
	const mark = "FIND-ME-IN-THE-JOURNAL"
	m.run("ipcctl", "send", "/rotten", mark)
	for range 10 {
		m.run("ipcctl", "send", "/rotten", "more")
	}
	m.run("systemctl", "stop", "ipcd.socket", "ipcd.service")
	m.run("cp", "-a", "/var/lib/ipcd", "/root/sound")
	segments, err := filepath.Glob(m.root + "/var/lib/ipcd/journal/*")
	if err != nil || len(segments) == 0 {
		t.Fatalf("no journal: %v", err)
	}
	damaged := false
	for _, segment := range segments {
		inside := strings.TrimPrefix(segment, m.root)
		if m.try("grep", "--quiet", mark, inside).exit == 0 {
			m.run("sed", "--in-place", "s/"+mark+"/"+strings.ToLower(mark)+"/", inside)
			m.run("chown", "ipcd:ipcd", inside)
			damaged = true
		}
	}
	if !damaged {
		t.Fatal("the message is in no segment")
	}

	if r := m.try("systemctl", "start", "ipcd.service"); r.exit == 0 {
		t.Error("a start on a damaged journal succeeded")
	}
	m.endedOnce("65")
	if r := m.try("setpriv", "--reuid", "ipcd", "--regid", "ipcd", "--clear-groups", "--", "ipcd", "fsck", "--state-dir", "/var/lib/ipcd"); r.exit != 65 || !strings.Contains(r.output, "/rotten") {
		t.Errorf("fsck: exit %d: %s", r.exit, r.output)
	}

	// Clients knock at the socket, and each time systemd would start the daemon again. It gives that up.
	for range 3 {
		m.try("ipcctl", "info", "--timeout", "1s")
	}
	m.awaitState("ipcd.socket", "failed")
	log := m.run("journalctl", "--no-pager", "--output=cat", "-u", "ipcd.service")
	if starts := strings.Count(log, "Starting ipcd.service"); starts > 15 {
		t.Errorf("the daemon was started %s times on a damaged journal", strconv.Itoa(starts))
	}

	m.run("rm", "-r", "/var/lib/ipcd")
	m.run("mv", "/root/sound", "/var/lib/ipcd")
	m.run("systemctl", "reset-failed", "ipcd.service", "ipcd.socket")
	m.run("systemctl", "start", "ipcd.service")
	if got := m.run("ipcctl", "recv", "/rotten", "--ack", "-o", "raw"); got != mark+"\n" {
		t.Errorf("after the repair the first message is %q", got)
	}
}
