//go:build linux

// Package crash proves on real processes that what ipcd acknowledged is on disk: daemons are killed, their
// disk fills, fails and rots, and a checker holds what comes back against what was promised.
package crash

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// bin holds the programs under test.
var bin string

// binVariable names a directory with programs that are built already: for trying others than the tree's,
// and for a test that runs itself again in a namespace.
const binVariable = "IPCD_CRASH_BIN"

func TestMain(m *testing.M) { os.Exit(runAll(m)) }

func runAll(m *testing.M) int {
	if bin = os.Getenv(binVariable); bin != "" {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "ipcd-crash")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	bin = dir
	if err := build(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// build makes the programs, under the race detector where there is a C compiler for it, so that a data
// race in the daemon shows.
func build() error {
	arguments := []string{"build", "-buildvcs=false", "-o", bin + "/"}
	if _, err := exec.LookPath("gcc"); err == nil {
		arguments = append(arguments, "-race")
	}
	cmd := exec.Command("go", append(arguments, "./cmd/ipcd", "./cmd/ipcctl", "./demo/exactlyonce")...)
	cmd.Dir = filepath.Join("..", "..")
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the programs: %w\n%s", err, output)
	}
	return nil
}
