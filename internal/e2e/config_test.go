//go:build linux

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// anyone ends the names of queues and rings that the daemons' configuration opens to anonymous callers.
const anyone = ".anyone"

// openConfig writes a configuration with that rule, and returns its path.
func openConfig(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "open.yaml")
	rule := "rules:\n- {queues: ['*" + anyone + "'], rings: ['*" + anyone + "'], anonymous: true, allow: [look, send, receive]}\n"
	if err := os.WriteFile(path, []byte(rule), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// writeConfig writes a configuration, or another one in its place, as dir/ipcd.yaml, and returns its path.
func writeConfig(t *testing.T, dir string, lines ...string) string {
	t.Helper()
	return writeFile(t, filepath.Join(dir, "ipcd.yaml"), strings.Join(lines, "\n")+"\n")
}

// writeFile writes a file, whose directory it makes, and returns its path.
func writeFile(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// through makes a program be started by a shell that runs a line of script before it.
func through(cmd *exec.Cmd, script string) {
	cmd.Args = append([]string{"sh", "-c", script + `; exec "$0" "$@"`, cmd.Path}, cmd.Args[1:]...)
	cmd.Path = "/bin/sh"
}
