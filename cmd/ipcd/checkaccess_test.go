package main

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func TestReadableByFollowsTheModesOnTheWay(t *testing.T) {
	dir := t.TempDir()
	inner := filepath.Join(dir, "inner")
	file := filepath.Join(inner, "file")
	if err := os.Mkdir(inner, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	own, group := uint32(os.Geteuid()), []string{strconv.Itoa(os.Getegid())}
	const other = 4_000_000_001
	for _, c := range []struct {
		dir, file os.FileMode
		uid       uint32
		groups    []string
		want      bool
	}{
		{0o700, 0o600, own, nil, true},
		{0o700, 0o200, own, group, false},
		{0o755, 0o644, other, nil, true},
		{0o755, 0o640, other, nil, false},
		{0o755, 0o640, other, group, true},
		{0o750, 0o644, other, nil, false},
		{0o750, 0o640, other, group, true},
		{0o705, 0o644, other, group, false}, // the group's bits count for its members, and not the others'
	} {
		for _, path := range []string{dir, inner} { // the first is a directory of the test's own
			if err := os.Chmod(path, c.dir); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chmod(file, c.file); err != nil {
			t.Fatal(err)
		}
		if above := filepath.Dir(dir); c.uid == other && !readableBy(above, other, c.groups) {
			if err := os.Chmod(above, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if got := readableBy(file, c.uid, c.groups); got != c.want {
			t.Errorf("%o/%o, uid %d, groups %v: %v", c.dir, c.file, c.uid, c.groups, got)
		}
	}
	if !readableBy(filepath.Join(dir, "none"), other, nil) {
		t.Error("what is not there was said to be closed")
	}
}

func TestCheckWarnsOfFilesThatTheDaemonCanNotRead(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root reads what others can not")
	}
	state := t.TempDir()
	if err := os.Chown(state, 4_000_000_001, 4_000_000_001); err != nil {
		t.Fatal(err)
	}
	file := configured(t, "state_dir: "+state+"\n", "")
	s := checkConfig(t, "--config", file).fine(t)
	for _, name := range []string{file, filepath.Join(filepath.Dir(file), "conf.d", "a.yaml")} {
		if want := "warning: " + name + ": by its mode, or that of a directory before it, uid 4000000001 can not read it"; !strings.Contains(s.err, want) {
			t.Errorf("said %q, want %q", s.err, want)
		}
	}
	if err := os.Chown(state, 0, 0); err != nil {
		t.Fatal(err)
	}
	if s := checkConfig(t, "--config", file).fine(t); s.err != "" {
		t.Errorf("of a daemon that is root: %q", s.err)
	}
}

func TestEmptyPathsAreMistakesOfTheCommandLine(t *testing.T) {
	for _, args := range [][]string{{"--socket", ""}, {"--state-dir="}, {"run", "--attach-socket", ""}, {"--config", ""}, {"check", "--config", ""}} {
		c := newCommand()
		c.SetArgs(args)
		var usage usageError
		if err := c.Execute(); !errors.As(err, &usage) || !strings.Contains(err.Error(), "is empty: name a path") {
			t.Errorf("%q: %v", args, err)
		}
	}
}
