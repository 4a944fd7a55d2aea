//go:build linux

// Package e2e tests ipcd as its users meet it: real processes of ipcd and ipcctl, the Go client, C
// programs, grpcurl, and bytes that no client would send. The numbers at the end of the tests' names
// are those of the items of ipcd's semantics.
package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// bin holds the programs under test. Every user may enter it, for some run as another user.
var bin string

func TestMain(m *testing.M) {
	if role := os.Getenv(memberVariable); role != "" {
		os.Exit(runMember(role))
	}
	os.Exit(runAll(m))
}

func runAll(m *testing.M) int {
	dir, err := os.MkdirTemp("", "ipcd-e2e")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
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

// build makes ipcd, ipcctl and the C programs. The Go programs run under the race detector where there
// is a C compiler for it, so that a data race in the daemon shows.
func build() error {
	arguments := []string{"build", "-buildvcs=false", "-o", bin + "/"}
	if _, err := exec.LookPath("gcc"); err == nil {
		arguments = append(arguments, "-race")
	}
	goBuild := exec.Command("go", append(arguments, "./cmd/ipcd", "./cmd/ipcctl")...)
	goBuild.Dir = filepath.Join("..", "..")
	if output, err := goBuild.CombinedOutput(); err != nil {
		return fmt.Errorf("build ipcd and ipcctl: %w\n%s", err, output)
	}
	for _, program := range []string{"producer", "consumer"} {
		source := filepath.Join("testdata", program+".c")
		output, err := exec.Command("gcc", "-O1", "-Wall", "-Wextra", "-Werror", "-o", filepath.Join(bin, program), source, "-lrt").CombinedOutput()
		if err != nil {
			return fmt.Errorf("compile %s: %w\n%s", source, err, output)
		}
	}
	return nil
}

// buildGrpcurl builds grpcurl as pinned in tools/go.mod, when it is first asked for.
var buildGrpcurl = sync.OnceValues(func() (string, error) {
	path := filepath.Join(bin, "grpcurl")
	output, err := exec.Command("go", "-C", "tools", "build", "-buildvcs=false", "-o", path, "github.com/fullstorydev/grpcurl/cmd/grpcurl").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build grpcurl: %w\n%s", err, output)
	}
	return path, nil
})
