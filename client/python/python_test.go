//go:build linux

// Package python_test runs the Python client's own tests, and what its README says, against a real daemon, with the
// Python, gRPC and protobuf that Debian packages.
package python_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ipcd/ipcd/internal/reason"
)

// python is Debian's: its packages are for no other one.
const python = "/usr/bin/python3"

// needPython skips a test where Debian's packages are missing.
func needPython(t *testing.T) {
	t.Helper()
	if output, err := exec.Command(python, "-c", "import grpc, google.protobuf").CombinedOutput(); err != nil {
		t.Skipf("%s lacks python3-grpcio or python3-protobuf, which install-debian installs: %v\n%s", python, err, output)
	}
}

// programs builds ipcd and ipcctl, under the race detector where there is a C compiler for it.
func programs(t *testing.T) string {
	t.Helper()
	bin := t.TempDir()
	arguments := []string{"build", "-buildvcs=false", "-o", bin + "/"}
	if _, err := exec.LookPath("gcc"); err == nil {
		arguments = append(arguments, "-race")
	}
	build := exec.Command("go", append(arguments, "./cmd/ipcd", "./cmd/ipcctl")...)
	build.Dir = filepath.Join("..", "..")
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", build, err, output)
	}
	return bin
}

// run runs a Python program that must succeed, and returns what it printed. It dies with the test.
func run(t *testing.T, environment []string, arguments ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, python, append([]string{"-B", "-X", "dev", "-W", "error::DeprecationWarning:ipcd"}, arguments...)...)
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	command.Cancel = func() error { return syscall.Kill(-command.Process.Pid, syscall.SIGKILL) }
	command.WaitDelay = 10 * time.Second
	command.Env = slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "IPCD_") || strings.HasPrefix(v, "PYTHON")
	})
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	command.Env = append(append(command.Env, "PYTHONPATH="+here), environment...)
	var output, words bytes.Buffer
	command.Stdout, command.Stderr = &output, &words
	if err := command.Run(); err != nil {
		t.Fatalf("python3 %s: %v\n%s%s", strings.Join(arguments, " "), err, output.String(), words.String())
	}
	if bad := words.String(); strings.Contains(bad, "Traceback") || strings.Contains(bad, "ResourceWarning") {
		t.Errorf("python3 %s says:\n%s", strings.Join(arguments, " "), bad)
	}
	return output.String() + words.String()
}

func TestPythonTests(t *testing.T) {
	needPython(t)
	output := run(t, []string{"IPCD_BIN=" + programs(t), "IPCD_CERTS=" + certificates(t)}, "-m", "unittest", "discover", "-t", ".", "-s", "tests")
	ran := regexp.MustCompile(`Ran (\d+) tests`).FindStringSubmatch(output)
	if ran == nil || len(ran[1]) < 2 {
		t.Fatalf("hardly a test ran:\n%s", output)
	}
	t.Log(ran[0])
}

// TestReadmeExamples runs each Python example of the README, in order, against one daemon.
func TestReadmeExamples(t *testing.T) {
	needPython(t)
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?ms)^```python\n(.*?)^```$").FindAllStringSubmatch(string(readme), -1)
	if len(blocks) < 3 {
		t.Fatalf("README has %d examples", len(blocks))
	}
	var script strings.Builder
	for i, block := range blocks {
		fmt.Fprintf(&script, "# example %d\n%s\n", i+1, block[1])
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "examples.py")
	if err := os.WriteFile(path, []byte(script.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, []string{"IPCD_BIN=" + programs(t)}, "-m", "tests.example", path)
}

func TestEveryReasonHasAnException(t *testing.T) {
	needPython(t)
	output := run(t, nil, "-c", "from ipcd import _errors; print(*_errors.BY_REASON)")
	known := map[string]bool{}
	for name := range strings.FieldsSeq(output) {
		known[name] = true
	}
	for _, r := range reason.All() {
		if !known[string(r)] {
			t.Errorf("ipcd._errors has no class for %s", r)
		}
		delete(known, string(r))
	}
	for name := range maps.Keys(known) {
		t.Errorf("ipcd._errors has a class for %s, which is no reason", name)
	}
}

// TestGeneratedCodeIsUpToDate generates it again, with the versions that generated it.
func TestGeneratedCodeIsUpToDate(t *testing.T) {
	version, err := exec.Command("protoc", "--version").Output()
	if err != nil || !bytes.HasPrefix(version, []byte("libprotoc 3.21.")) {
		t.Skipf("protoc 3.21 is not here (%q, %v): install-debian installs it", version, err)
	}
	if _, err := exec.LookPath("grpc_python_plugin"); err != nil {
		t.Skipf("%v: install-debian installs it", err)
	}
	fresh := t.TempDir()
	if output, err := exec.Command("./generate", fresh).CombinedOutput(); err != nil {
		t.Fatalf("generate: %v\n%s", err, output)
	}
	committed := filepath.Join("ipcd", "_proto")
	names := map[string]bool{}
	for _, dir := range []string{fresh, committed} {
		files, err := filepath.Glob(filepath.Join(dir, "*.py*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			names[filepath.Base(file)] = true
		}
	}
	for name := range names {
		want, err := os.ReadFile(filepath.Join(fresh, name))
		if err != nil {
			t.Errorf("%s is generated no more: run client/python/generate", name)
			continue
		}
		if got, err := os.ReadFile(filepath.Join(committed, name)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what the .proto files give: run client/python/generate", name)
		}
	}
	if len(names) < 10 {
		t.Fatalf("only %d files were generated", len(names))
	}
}
