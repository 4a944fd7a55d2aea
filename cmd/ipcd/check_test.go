package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// checkConfig runs ipcd check.
func checkConfig(t *testing.T, args ...string) said {
	t.Helper()
	c := newCheck()
	c.SilenceErrors, c.SilenceUsage = true, true
	var out, err bytes.Buffer
	c.SetOut(&out)
	c.SetErr(&err)
	c.SetArgs(args)
	failure := c.ExecuteContext(t.Context())
	return said{out: out.String(), err: err.String(), failure: failure}
}

// configured writes a configuration with a file of conf.d.
func configured(t *testing.T, text, more string) string {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "ipcd.yaml")
	if err := os.Mkdir(filepath.Join(dir, "conf.d"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{file: text, filepath.Join(dir, "conf.d", "a.yaml"): more} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return file
}

func TestCheckOfAGoodConfigurationTellsWhatItRead(t *testing.T) {
	file := configured(t, "queues: {/a: , /b: }\nrules: [{queues: [a], users: [root], allow: [look]}]\n", "rings: {/r: }\n")
	s := checkConfig(t, "--config", file).fine(t)
	if s.out != file+": ok (2 files, 2 queues, 1 ring, 1 rule)\n" || s.err != "" {
		t.Errorf("said %q, %q", s.out, s.err)
	}
}

func TestCheckTellsEveryMistakeOnALine(t *testing.T) {
	file := configured(t, "log_levle: info\nlisten: 0.0.0.0:1\n", "queues:\n  /a: {lease: 1}\n")
	s := checkConfig(t, "--config", file)
	var usage usageError
	if !errors.As(s.failure, &usage) || !strings.Contains(s.failure.Error(), "3 mistakes") || s.out != "" {
		t.Errorf("%v, %q", s.failure, s.out)
	}
	lines := strings.Split(strings.TrimSuffix(s.err, "\n"), "\n")
	for i, say := range []string{file + ":1: log_levle: there is no such key (did you mean log_level?)", file + ":2: listen: ", filepath.Join(filepath.Dir(file), "conf.d", "a.yaml") + ":2: queues./a.lease: "} {
		if len(lines) != 3 || !strings.HasPrefix(lines[i], say) {
			t.Errorf("said %q, want %q", lines, say)
		}
	}
}

func TestCheckOfAFileThatIsNotThereSaysSo(t *testing.T) {
	s := checkConfig(t, "--config", filepath.Join(t.TempDir(), "none.yaml"))
	if s.failure == nil || !strings.Contains(s.err, "none.yaml: there is no such file") {
		t.Errorf("%v, %q", s.failure, s.err)
	}
}

func TestCheckWarns(t *testing.T) {
	file := configured(t, "", "")
	if err := os.WriteFile(filepath.Join(filepath.Dir(file), "conf.d", "b.yml"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if s := checkConfig(t, "--config", file).fine(t); !strings.HasPrefix(s.err, "warning: ") || !strings.Contains(s.err, "b.yml: it is not read") {
		t.Errorf("said %q", s.err)
	}
}

func TestCheckListsTheKeys(t *testing.T) {
	s := checkConfig(t, "--keys").fine(t)
	for _, say := range []string{"log_level (word, debug, info, warn or error; default info)\n", "queues./NAME.mqueue.mode (", "rules[].allow ("} {
		if !strings.Contains(s.out, say) {
			t.Errorf("%q is missing", say)
		}
	}
	if s := checkConfig(t, "extra"); s.failure == nil {
		t.Error("an argument was taken")
	}
}
