package main

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// ends runs the binary and returns its exit code and what it said on standard error.
func ends(t *testing.T, args ...string) (code int, said string) {
	t.Helper()
	var errs strings.Builder
	cmd := exec.Command(binary, args...)
	cmd.Stderr = &errs
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), errs.String()
}

func TestFsckExitCodes(t *testing.T) {
	sound, files := manySegments(t)
	damaged := copyOf(t, sound)
	for _, file := range files {
		if at := bodyIn(t, file); at >= 0 {
			flip(t, filepath.Join(damaged, journalDir, filepath.Base(file)), at+100)
			break
		}
	}
	for _, test := range []struct {
		code int
		say  string
		args []string
	}{
		{0, "", []string{"fsck", "--state-dir", sound}},
		{exitDamage, "damaged", []string{"fsck", "--state-dir", damaged}},
		{exitDamage, "damaged", []string{"fsck", "--json", "--state-dir", damaged}},
		{exitFailure, "no such file", []string{"fsck", "--state-dir", filepath.Join(sound, "none")}},
		{exitUsage, "--help", []string{"fsck", "--frobnicate"}},
		{exitUsage, "--help", []string{"fsck", "now"}},
	} {
		if code, said := ends(t, test.args...); code != test.code || !strings.Contains(said, test.say) {
			t.Errorf("ipcd %q: exit code %d, said %q; want %d, %q", test.args, code, said, test.code, test.say)
		}
	}
}

// While a daemon runs its directory is left to it; afterwards it is found sound.
func TestFsckOfARunningDaemon(t *testing.T) {
	d := start(t, t.TempDir())
	dir := filepath.Join(d.dir, "state")
	if code, said := ends(t, "fsck", "--state-dir", dir); code != exitFailure || !strings.Contains(said, fmt.Sprintf("pid %d", d.cmd.Process.Pid)) {
		t.Errorf("exit code %d, said %q", code, said)
	}
	d.signal(syscall.SIGKILL)
	d.wait()
	if code, said := ends(t, "fsck", "--state-dir", dir); code != 0 {
		t.Errorf("after kill -9: exit code %d, said %q", code, said)
	}
}
