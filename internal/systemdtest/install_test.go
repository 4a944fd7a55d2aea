//go:build linux

package systemdtest

import (
	"crypto/sha256"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestPackageHasNoErrorsForLintian(t *testing.T) {
	if os.Getenv(enableVariable) == "" {
		t.Skipf("%s is not set", enableVariable)
	}
	if _, err := exec.LookPath("lintian"); err != nil {
		t.Skip("lintian is not installed")
	}
	output, err := exec.Command("lintian", "--allow-root", "--fail-on", "error,warning", debian(t, newVersion)).CombinedOutput()
	if err != nil {
		t.Errorf("lintian: %v\n%s", err, output)
	}
}

func TestPackageIsTheSameEachTime(t *testing.T) {
	if os.Getenv(enableVariable) == "" {
		t.Skipf("%s is not set", enableVariable)
	}
	again := t.TempDir()
	if err := build(newVersion, again); err != nil {
		t.Fatal(err)
	}
	var sums [2][sha256.Size]byte
	for i, path := range []string{debian(t, newVersion), packagePath(again, newVersion)} {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		sums[i] = sha256.Sum256(content)
	}
	if sums[0] != sums[1] {
		t.Errorf("two packages of the same commit differ: %x and %x", sums[0], sums[1])
	}
}

func TestInstalledServiceIsHardenedAndServes(t *testing.T) {
	m := boot(t)
	m.install(newVersion)

	if output := m.run("systemd-analyze", "verify", "--man=no", "/lib/systemd/system/ipcd.service", "/lib/systemd/system/ipcd.socket"); output != "" {
		t.Errorf("systemd-analyze verify says:\n%s", output)
	}
	security := m.run("systemd-analyze", "security", "--offline=true", "--no-pager", "/lib/systemd/system/ipcd.service")
	exposure := regexp.MustCompile(`exposure level for ipcd.service: ([0-9.]+)`).FindStringSubmatch(security)
	if exposure == nil {
		t.Fatalf("systemd-analyze security says:\n%s", security)
	}
	if level, err := strconv.ParseFloat(exposure[1], 64); err != nil || level > 1.5 {
		t.Errorf("exposure %s, want 1.5 or less:\n%s", exposure[1], security)
	}

	m.awaitState("ipcd.service", "active")
	for property, want := range map[string]string{"UnitFileState": "enabled", "User": "ipcd", "NRestarts": "0"} {
		if got := m.property("ipcd.service", property); got != want {
			t.Errorf("%s of the service is %q, want %q", property, got, want)
		}
	}
	if status := m.property("ipcd.service", "StatusText"); status == "" {
		t.Error("the service has no status line")
	}
	if info := m.run("ipcctl", "info"); !strings.Contains(info, newVersion) {
		t.Errorf("info names no version %s:\n%s", newVersion, info)
	}
	journal := m.run("journalctl", "--no-pager", "-u", "ipcd.service")
	for _, bad := range []string{"futex_waitv", "operation not permitted", "Operation not permitted", "permission denied"} {
		if strings.Contains(journal, bad) {
			t.Errorf("the hardening takes away what the daemon needs (%q):\n%s", bad, journal)
		}
	}
	if state := m.run("stat", "--format=%U:%G %a", "/var/lib/ipcd"); strings.TrimSpace(state) != "ipcd:ipcd 700" {
		t.Errorf("the state directory is %s", state)
	}
	for _, page := range []string{"man8/ipcd.8.gz", "man1/ipcctl.1.gz", "man5/ipcd.yaml.5.gz"} {
		// debootstrap's minbase has no man.
		if text := m.run("zcat", "/usr/share/man/"+page); !strings.Contains(text, ".SH NAME") {
			t.Errorf("%s is no manual page", page)
		}
	}
}

func TestSysctlsThatComeWithThePackageAreTaken(t *testing.T) {
	m := boot(t)
	m.install(newVersion)
	// A container's /proc/sys is read-only; from outside, its IPC namespace is as good as a host's.
	in := exec.Command("nsenter", "--target", strconv.Itoa(m.leader), "--ipc", "sysctl", "--load="+m.root+"/usr/lib/sysctl.d/60-ipcd.conf")
	if output, err := in.CombinedOutput(); err != nil {
		t.Fatalf("sysctl: %v\n%s", err, output)
	}
	m.run("systemctl", "restart", "ipcd.service")
	m.run("ipcctl", "create", "/deep", "--mqueue", "in")
	if stat := m.run("ipcctl", "stat", "/deep"); !strings.Contains(stat, "65536") && !strings.Contains(stat, "64KiB") {
		t.Errorf("a kernel queue does not take messages of 64 KiB:\n%s", stat)
	}
}

func TestFirstConnectionStartsTheDaemon(t *testing.T) {
	m := boot(t)
	m.install(newVersion)
	m.run("systemctl", "stop", "ipcd.service")
	if state := m.property("ipcd.service", "ActiveState"); state != "inactive" {
		t.Fatalf("the service is %s after a stop", state)
	}
	if state := m.property("ipcd.socket", "ActiveState"); state != "active" {
		t.Fatalf("the socket is %s after a stop of the service", state)
	}
	m.run(as("alice", "ipcctl", "info")...)
	m.awaitState("ipcd.service", "active")

	// The socket for rings starts it as well.
	m.run("ipcctl", "ring", "create", "/r", "--mode", "0666", "--policy", "lossless")
	m.run("systemctl", "stop", "ipcd.service")
	p := m.launch("alice", "ring", "/r")
	p.goesOn()
	p.stop(&ringReport{})
}

func TestPurgeLeavesNothingBehind(t *testing.T) {
	m := boot(t)
	before := m.files()
	m.install(newVersion)
	m.run("ipcctl", "create", "/jobs", "--mqueue", "in", "--mode", "0660")
	m.run("ipcctl", "send", "/jobs", "hello")
	m.run("ipcctl", "ring", "create", "/ticks")

	m.run("dpkg", "--remove", "ipcd")
	if r := m.try("pgrep", "-u", "ipcd"); r.exit == 0 {
		t.Errorf("after the removal there is still a process of ipcd: %s", r.output)
	}
	if r := m.try("ls", "/run/ipcd"); r.exit == 0 {
		t.Errorf("after the removal there is still /run/ipcd:\n%s", r.output)
	}
	m.run("test", "-d", "/var/lib/ipcd/journal") // the messages stay until the purge
	m.run("test", "-f", "/etc/ipcd/ipcd.yaml")

	m.run("dpkg", "--purge", "ipcd")
	for _, file := range m.files() {
		if !slices.Contains(before, file) && !regexp.MustCompile(`^/(var/log|var/lib/dpkg|var/cache|var/lib/systemd/(catalog|random-seed|timers)|etc/(passwd|group|shadow|gshadow|\.pwd\.lock)|root|tmp|var/tmp)`).MatchString(file) {
			t.Errorf("the purge has left %s", file)
		}
	}
	if left := m.run("ls", "/dev/mqueue"); left != "" {
		t.Errorf("the purge has left kernel queues: %s", left)
	}
	for _, unit := range []string{"ipcd.service", "ipcd.socket"} {
		if state := m.property(unit, "LoadState"); state != "not-found" {
			t.Errorf("%s is %s", unit, state)
		}
	}
	if failed := m.run("systemctl", "--failed", "--plain", "--no-legend"); strings.Contains(failed, "ipcd") {
		t.Errorf("failed units: %s", failed)
	}
	m.run("getent", "passwd", "ipcd") // its uid is never given to somebody else

	// And again, to the same user.
	m.install(newVersion)
	if listing := m.run("ipcctl", "ls", "--no-headers"); listing != "" {
		t.Errorf("after a purge the new daemon has queues: %s", listing)
	}
}

// files lists the files of the machine's root and of /run.
func (m *machine) files() []string {
	m.t.Helper()
	return strings.Fields(m.run("find", "/", "-xdev", "-path", "/run", "-prune", "-o", "-path", "/proc", "-prune", "-o", "-print"))
}

func TestAdministratorsChangesSurviveUpgradeAndRemoval(t *testing.T) {
	m := boot(t)
	m.install(oldVersion)
	m.write("/etc/ipcd/ipcd.yaml", "stop_timeout: 7s\n")
	m.write("/etc/ipcd/conf.d/mine.yaml", "log_level: debug\n")
	m.run("systemctl", "disable", "ipcd.service")
	m.install(newVersion)
	if got := m.run("cat", "/etc/ipcd/ipcd.yaml"); got != "stop_timeout: 7s\n" {
		t.Errorf("the configuration is now %q", got)
	}
	if state := m.try("systemctl", "is-enabled", "ipcd.service").output; strings.TrimSpace(state) != "disabled" {
		t.Errorf("what was disabled is now %s", state)
	}
	m.run("dpkg", "--purge", "ipcd")
	m.run("test", "-f", "/etc/ipcd/conf.d/mine.yaml")
}
