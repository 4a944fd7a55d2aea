//go:build linux

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// check runs ipcd check on a file.
func check(t *testing.T, path string, prepare func(*exec.Cmd)) result {
	t.Helper()
	cmd := exec.CommandContext(within(t), filepath.Join(bin, "ipcd"), "check", "--config", path)
	cmd.Env, cmd.Dir = environment(), "/"
	if prepare != nil {
		prepare(cmd)
	}
	return finish(t, cmd)
}

func TestCheckOfTheConfigurationNamesFileLineAndKey(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	path := writeConfig(t, dir, "log_level: debug", "queues:", "  /jobs: {lease: 10s}")
	writeFile(t, filepath.Join(dir, "conf.d", "10-more.yaml"), "rules:\n- {queues: [jobs], users: [0], allow: [send]}\n")
	if r := check(t, path, nil).exits(t, 0); !strings.Contains(r.out, "ok (2 files, 1 queue, 0 rings, 1 rule)") {
		t.Errorf("it says %q", r.out)
	}
	if _, err := os.Stat(filepath.Join(dir, "state")); err == nil {
		t.Error("a check makes a state directory")
	}

	writeConfig(t, dir, "log_level: loud", "queues:", "  /jobs:", "    lease: 1ns", "    leese: 10s", "stop_timeout: 1s", "stop_timeout: 2s")
	writeFile(t, filepath.Join(dir, "conf.d", "10-more.yaml"), "rules:\n- {queues: [jobs], users: [no-such-user-here], allow: [send]}\n- {queues: ['[']}\n")
	writeFile(t, filepath.Join(dir, "conf.d", "20-odd.yml"), "x: y\n")
	check(t, path, nil).exits(t, 2).says(t,
		path+":1: log_level: ", "debug, info, warn or error",
		path+":4: queues./jobs.lease: ",
		path+":5: queues./jobs.leese: ", "did you mean lease?",
		path+":7: stop_timeout: it stands in line 6 too",
		"conf.d/10-more.yaml:2: rules[1].users[1]: ", "no-such-user-here",
		"conf.d/10-more.yaml:3: ",
		"warning: ", "20-odd.yml", "6 mistakes")

	check(t, filepath.Join(dir, "missing.yaml"), nil).exits(t, 2).says(t, "missing.yaml", "no such file")
	check(t, dir, nil).exits(t, 2)
	check(t, writeFile(t, filepath.Join(dir, "binary", "x.yaml"), "a\x00b"), nil).exits(t, 2).says(t, "x.yaml:1")
	check(t, writeFile(t, filepath.Join(dir, "large", "x.yaml"), strings.Repeat("# much\n", 1<<16)), nil).exits(t, 2).says(t, "larger than", "conf.d")
	check(t, writeFile(t, filepath.Join(dir, "bomb", "x.yaml"), "a: &a [x]\nb: [*a, *a]\n"), nil).exits(t, 2).says(t, "x.yaml:1", "anchors")
}

func TestCheckOfAConfigurationThatOneMayNotRead(t *testing.T) {
	t.Parallel()
	needsRoot(t)
	dir := shortDir(t)
	path := writeConfig(t, dir, "log_level: info")
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	asStranger := func(cmd *exec.Cmd) {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: strangerUID, Gid: strangerGID}}
	}
	check(t, path, asStranger).exits(t, 2).says(t, path, "can not be read", "as root")
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	check(t, path, asStranger).exits(t, 0)
}

func TestDaemonDoesNotStartWithAMistake(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	path := writeConfig(t, dir, "stop_timeout: soon", "sokket: /x")
	writeFile(t, filepath.Join(dir, "conf.d", "a.yaml"), "log_level: loud\n")
	d := launch(t, dir, "--config", path)
	if code := d.awaitExit(t); code != 2 {
		t.Errorf("exit %d, want 2", code)
	}
	for _, word := range []string{path + ":1: stop_timeout", path + ":2: sokket", "a.yaml:1: log_level"} {
		if !strings.Contains(d.log.String(), word) {
			t.Errorf("it does not say %q: %s", word, d.log)
		}
	}
	if _, err := os.Stat(d.socket); err == nil {
		t.Error("a daemon that does not start leaves a socket")
	}

	// Users who are gone keep nobody from starting: what was granted to them is left out, and said.
	writeConfig(t, dir, "rules:", "- {queues: ['*'], users: [no-such-user-here], allow: [send]}", "admin_group: no-such-group-here")
	if err := os.RemoveAll(filepath.Join(dir, "conf.d")); err != nil {
		t.Fatal(err)
	}
	d = startIn(t, dir, "--config", path)
	for _, word := range []string{"no-such-user-here", "no-such-group-here", "left out"} {
		if !strings.Contains(d.log.String(), word) {
			t.Errorf("the log does not say %q", word)
		}
	}
	d.ctl(t, "reload").exits(t, 1).says(t, "no-such-user-here") // at a reload it is a mistake
}
