//go:build linux

package systemdtest

import (
	"strings"
	"testing"
)

const examples = "/usr/share/doc/ipcd/examples/"

func TestTCPFromTheSocketUnitNeedsNoLooserService(t *testing.T) {
	m := boot(t)
	m.install(newVersion)
	// The example is for TLS and every address; without certificates there is only loopback.
	example := m.run("cat", examples+"ipcd-socket-tcp.conf")
	if !strings.Contains(example, "ListenStream=7475\n") {
		t.Fatalf("the example is\n%s", example)
	}
	m.write("/etc/systemd/system/ipcd.socket.d/tcp.conf", strings.ReplaceAll(example, "ListenStream=7475\n", "ListenStream=127.0.0.1:7475\n"))
	m.write("/etc/ipcd/conf.d/tcp.yaml", "insecure: true\n")
	m.run("systemctl", "daemon-reload")
	m.run("systemctl", "stop", "ipcd.service", "ipcd.socket")
	m.run("systemctl", "start", "ipcd.service")
	m.run("ipcctl", "--address", "127.0.0.1:7475", "--insecure", "info")
	// Nobody knows who calls there.
	m.run("ipcctl", "create", "/open", "--mode", "0666", "--mqueue", "none")
	if r := m.try("ipcctl", "--address", "127.0.0.1:7475", "--insecure", "send", "/open", "hello"); r.exit != exitDenied {
		t.Errorf("an anonymous send: exit %d, want %d: %s", r.exit, exitDenied, r.output)
	}
}

func TestHTTPNeedsADropInForTCPAlone(t *testing.T) {
	m := boot(t)
	m.install(newVersion)
	fetch := func(address string) (page string) {
		m.once("root", "http", address, &page)
		return page
	}
	m.write("/etc/ipcd/conf.d/http.yaml", "http: unix:/run/ipcd/http/http.sock\n")
	m.run("systemctl", "restart", "ipcd.service")
	if page := fetch("unix:/run/ipcd/http/http.sock:/metrics"); !strings.Contains(page, "\nipcd_") {
		t.Errorf("no metrics of ipcd in\n%s", page)
	}

	m.write("/etc/ipcd/conf.d/http.yaml", "http: 127.0.0.1:9475\n")
	if r := m.try("systemctl", "restart", "ipcd.service"); r.exit == 0 {
		t.Error("the hardened service made a TCP socket")
	}
	if log := m.run("journalctl", "--no-pager", "-u", "ipcd.service"); !strings.Contains(log, "address family not supported by protocol") {
		t.Errorf("the log does not say what is wrong:\n%s", tail(log, 10))
	}
	m.run("install", "-D", "-m", "644", examples+"tcp.conf", "/etc/systemd/system/ipcd.service.d/tcp.conf")
	m.run("systemctl", "daemon-reload")
	m.run("systemctl", "reset-failed", "ipcd.service", "ipcd.socket")
	m.run("systemctl", "restart", "ipcd.service")
	for page, says := range map[string]string{"/metrics": "\nipcd_", "/healthz": "ok", "/readyz": "ready"} {
		if got := fetch("127.0.0.1:9475" + page); !strings.Contains(got, says) {
			t.Errorf("%s says\n%s", page, got)
		}
	}
}
