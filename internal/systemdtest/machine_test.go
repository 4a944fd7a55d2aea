//go:build linux

package systemdtest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// machine is a booted Debian.
type machine struct {
	t      *testing.T
	root   string // its root directory, as the host sees it
	leader int    // its init, as the host sees it
	nspawn *exec.Cmd
	exited chan struct{}
}

// programPath is where this program is in the machine.
const programPath = "/usr/local/bin/systemdtest"

// boot starts a machine with the users alice (in the group jobs) and mallory (in none). It ends with the test.
func boot(t *testing.T) *machine {
	t.Helper()
	if os.Getenv(enableVariable) == "" {
		t.Skipf("%s is not set", enableVariable)
	}
	if os.Geteuid() != 0 {
		t.Fatal("booting a machine wants root")
	}
	base, err := rootFS()
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{t: t, root: overlay(t, base), exited: make(chan struct{})}
	m.copyProgram()
	m.write("/etc/hostname", "ipcd-test\n")
	m.start()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the machine's log:\n%s", tail(m.try("journalctl", "-b", "--no-pager", "-o", "short-precise", "-u", "ipcd.service", "-u", "ipcd.socket").output, 60))
		}
		m.end()
	})
	eventually(t, "the machine is up", func() bool {
		state := strings.TrimSpace(m.try("systemctl", "is-system-running", "--wait").output)
		return state == "running" || state == "degraded"
	})
	m.run("groupadd", "jobs")
	m.run("useradd", "--create-home", "--groups", "jobs", "alice")
	m.run("useradd", "--create-home", "mallory")
	progress("%s: a machine is up", t.Name())
	return m
}

// overlay returns a directory that shows base, and in which writing changes it not.
func overlay(t *testing.T, base string) string {
	t.Helper()
	// Beside base: an overlay can not lie on an overlay, and a temporary directory may.
	dir, err := os.MkdirTemp(filepath.Dir(base), "machine-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	var paths [3]string
	for i, name := range []string{"upper", "work", "root"} {
		paths[i] = filepath.Join(dir, name)
		if err := os.Mkdir(paths[i], 0o755); err != nil {
			t.Fatal(err)
		}
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", base, paths[0], paths[1])
	if err := syscall.Mount("overlay", paths[2], "overlay", 0, options); err != nil {
		t.Fatalf("mount an overlay: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(paths[2], 0); err != nil {
			t.Errorf("unmount the machine's root: %v", err)
		}
	})
	return paths[2]
}

// start runs nspawn and finds the machine's init.
func (m *machine) start() {
	m.t.Helper()
	name := fmt.Sprintf("ipcd-test-%d", os.Getpid())
	m.nspawn = exec.Command("systemd-nspawn", "--quiet", "--directory="+m.root, "--machine="+name, "--register=no", "--keep-unit", "--private-network", "--console=pipe", "--boot")
	// A session of its own: a terminal's interrupt is for the tests, which then end the machine in order.
	m.nspawn.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // see PR_SET_PDEATHSIG(2const): it is the thread's death that counts
		err := m.nspawn.Start()
		started <- err
		if err == nil {
			_ = m.nspawn.Wait()
			close(m.exited)
		}
	}()
	if err := <-started; err != nil {
		m.t.Fatalf("systemd-nspawn: %v", err)
	}
	eventually(m.t, "nspawn has an init", func() bool {
		m.alive()
		pid := m.nspawn.Process.Pid
		children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
		m.leader, _ = strconv.Atoi(strings.TrimSpace(string(children)))
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", m.leader))
		return string(status) == "systemd\n"
	})
}

func (m *machine) alive() {
	m.t.Helper()
	select {
	case <-m.exited:
		m.t.Fatalf("systemd-nspawn has ended: %v", m.nspawn.ProcessState)
	default:
	}
}

// end powers the machine off.
func (m *machine) end() {
	_ = m.nspawn.Process.Signal(syscall.SIGTERM)
	select {
	case <-m.exited:
	case <-time.After(patience):
		m.t.Error("the machine does not power off")
		_ = m.nspawn.Process.Kill()
		<-m.exited
	}
}

// copyProgram puts this program into the machine.
func (m *machine) copyProgram() {
	m.t.Helper()
	from, err := os.Open("/proc/self/exe")
	if err != nil {
		m.t.Fatal(err)
	}
	defer from.Close()
	to, err := os.OpenFile(filepath.Join(m.root, programPath), os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		m.t.Fatal(err)
	}
	_, err = io.Copy(to, from)
	if err := errors.Join(err, to.Close()); err != nil {
		m.t.Fatal(err)
	}
}

// write makes a file of the machine, with the directories above it.
func (m *machine) write(path, content string) {
	m.t.Helper()
	path = filepath.Join(m.root, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		m.t.Fatal(err)
	}
}

// result is what came of a command in the machine.
type result struct {
	output string // stdout and stderr
	exit   int
}

// enter returns a command that runs in the machine.
func (m *machine) enter(arguments ...string) *exec.Cmd {
	in := []string{"--target", strconv.Itoa(m.leader), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd=/", "--"}
	in = append(in, "/usr/bin/env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive")
	return exec.Command("nsenter", append(in, arguments...)...)
}

// try runs a command of root in the machine.
func (m *machine) try(arguments ...string) result {
	var output bytes.Buffer
	cmd := m.enter(arguments...)
	cmd.Stdout, cmd.Stderr = &output, &output
	err := cmd.Run()
	if cmd.ProcessState == nil {
		return result{output: err.Error(), exit: -1}
	}
	return result{output: output.String(), exit: cmd.ProcessState.ExitCode()}
}

// run is try for a command that must succeed.
func (m *machine) run(arguments ...string) string {
	m.t.Helper()
	r := m.try(arguments...)
	if r.exit != 0 {
		m.t.Fatalf("%q: exit %d\n%s", arguments, r.exit, tail(r.output, 40))
	}
	return r.output
}

// as is the beginning of a command of another user.
func as(user string, arguments ...string) []string {
	return append([]string{"setpriv", "--reuid", user, "--regid", user, "--init-groups", "--"}, arguments...)
}

// install installs a version of the package.
func (m *machine) install(version string) {
	m.t.Helper()
	file := debian(m.t, version)
	content, err := os.ReadFile(file)
	if err != nil {
		m.t.Fatal(err)
	}
	inside := "/root/" + filepath.Base(file)
	if err := os.WriteFile(filepath.Join(m.root, inside), content, 0o644); err != nil {
		m.t.Fatal(err)
	}
	m.run("dpkg", "--install", inside)
	m.run("rm", inside)
}

// property returns a property of one of ipcd's units.
func (m *machine) property(unit, name string) string {
	m.t.Helper()
	return strings.TrimSpace(m.run("systemctl", "show", "--property", name, "--value", unit))
}

// awaitState waits until a unit is active, inactive or failed.
func (m *machine) awaitState(unit, state string) {
	m.t.Helper()
	eventually(m.t, unit+" is "+state, func() bool { return m.property(unit, "ActiveState") == state })
}
