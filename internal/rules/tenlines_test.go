//go:build linux

package rules

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const tenLines = "docs/ten-lines.md"

// tenLinesSays is what each program of the page that asks prints.
const tenLinesSays = "work on b.png\nthumb of b.png\n"

// TestTenLinesAreTrue runs every program of the page against a real daemon: each that asks, with one in another language
// that answers.
func TestTenLinesAreTrue(t *testing.T) {
	page := string(read(t, tenLines))
	dir, err := os.MkdirTemp("", "ipcd-ten") // short: the path of a socket has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	bin := filepath.Join(dir, "bin")
	buildBinaries(t, bin)
	d := tenDaemon(t, dir, bin)

	shell := codeBlocks(page, "sh")
	if len(shell) != 3 {
		t.Fatalf("%s has %d blocks of shell, not those that make the queues, ask and answer", tenLines, len(shell))
	}
	d.must(t, d.shell(shell[0]))

	type speaker struct {
		language    string
		ask, answer []string // command lines
	}
	var speakers []speaker
	for _, language := range []struct {
		name, fence string
		prepare     func(t *testing.T, d *tenDaemonDir, name, source string) []string
	}{{"Go", "go", goProgram}, {"C", "c", cProgram}, {"Python", "python", pythonProgram}, {"Shell", "sh", shellProgram}} {
		t.Run(language.name, func(t *testing.T) {
			blocks := codeBlocks(page, language.fence)
			if language.fence == "sh" {
				blocks = blocks[1:]
			}
			if len(blocks) != 2 {
				t.Fatalf("%s has %d programs in %s, not one that asks and one that answers", tenLines, len(blocks), language.name)
			}
			speakers = append(speakers, speaker{
				language: language.name,
				ask:      language.prepare(t, d, language.fence+"-ask", blocks[0]),
				answer:   language.prepare(t, d, language.fence+"-answer", blocks[1]),
			})
		})
	}
	for i, asks := range speakers {
		answers := speakers[(i+1)%len(speakers)]
		t.Run(asks.language+" asks "+answers.language, func(t *testing.T) {
			answered := make(chan error, 1)
			go func() {
				output, err := d.command(answers.answer).CombinedOutput()
				if err != nil {
					err = fmt.Errorf("%w\n%s", err, output)
				}
				answered <- err
			}()
			if got := d.must(t, d.command(asks.ask)); got != tenLinesSays {
				t.Errorf("it prints %q, not %q", got, tenLinesSays)
			}
			if err := <-answered; err != nil {
				t.Errorf("who answers ended with %v", err)
			}
			if left := d.must(t, d.shell("ipcctl recv /jobs -n 10 --ack -o raw")); left != "a.png\n" {
				t.Errorf("of the jobs %q are left, not the one that nobody took", left)
			}
		})
	}
}

// tenDaemonDir is a daemon, and the directory with all that its clients need.
type tenDaemonDir struct {
	ctx      context.Context
	dir, bin string
}

func tenDaemon(t *testing.T, dir, bin string) *tenDaemonDir {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	d := &tenDaemonDir{ctx: ctx, dir: dir, bin: bin}
	daemon := d.command([]string{filepath.Join(bin, "ipcd"), "--socket", d.socket(), "--state-dir", filepath.Join(dir, "state")})
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); _ = daemon.Wait() })
	d.must(t, d.shell("until ipcctl info >/dev/null 2>&1; do sleep 0.02; done"))
	return d
}

func (d *tenDaemonDir) socket() string { return filepath.Join(d.dir, "s") }

// command is a program that finds the daemon, ipcctl and the Python client, and ends with the test.
func (d *tenDaemonDir) command(line []string) *exec.Cmd {
	c := exec.CommandContext(d.ctx, line[0], line[1:]...)
	here, _ := filepath.Abs(root)
	c.Env = append(cleanEnvironment("IPCD_ADDRESS="+d.socket(), "PATH="+d.bin+":"+os.Getenv("PATH")),
		"PYTHONPATH="+filepath.Join(here, "client", "python"), "PYTHONDONTWRITEBYTECODE=1")
	c.WaitDelay = 10 * time.Second
	return c
}

func (d *tenDaemonDir) shell(script string) *exec.Cmd {
	return d.command([]string{"sh", "-euc", script})
}

// must runs a command that must succeed, and returns what it wrote to stdout.
func (d *tenDaemonDir) must(t *testing.T, c *exec.Cmd) string {
	t.Helper()
	var words strings.Builder
	c.Stderr = &words
	output, err := c.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s%s", c.Args, err, output, words.String())
	}
	return string(output)
}

// keep writes a program to a file.
func (d *tenDaemonDir) keep(t *testing.T, name, source string) string {
	t.Helper()
	path := filepath.Join(d.dir, name)
	if err := os.WriteFile(path, []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func goProgram(t *testing.T, d *tenDaemonDir, name, source string) []string {
	t.Helper()
	program := filepath.Join(d.dir, name)
	build := exec.Command("go", "build", "-o", program, d.keep(t, name+".go", source))
	build.Dir = root
	d.must(t, build)
	return []string{program}
}

func cProgram(t *testing.T, d *tenDaemonDir, name, source string) []string {
	t.Helper()
	probe := exec.Command("gcc", "-fsyntax-only", "-include", "nghttp2/nghttp2.h", "-x", "c", os.DevNull)
	if output, err := probe.CombinedOutput(); err != nil {
		t.Skipf("gcc or nghttp2's header (libnghttp2-dev) is not here: %v\n%s", err, output)
	}
	program := filepath.Join(d.dir, name)
	build := exec.Command("gcc", "-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-Iclient/c", "-o", program,
		d.keep(t, name+".c", source), "client/c/ipcd.c", "-lnghttp2")
	build.Dir = root
	d.must(t, build)
	return []string{program}
}

func pythonProgram(t *testing.T, d *tenDaemonDir, name, source string) []string {
	t.Helper()
	const python = "/usr/bin/python3" // Debian's: its packages are for no other one
	if output, err := exec.Command(python, "-c", "import grpc, google.protobuf").CombinedOutput(); err != nil {
		t.Skipf("%s lacks python3-grpcio or python3-protobuf: %v\n%s", python, err, output)
	}
	return []string{python, d.keep(t, name+".py", source)}
}

func shellProgram(t *testing.T, d *tenDaemonDir, name, source string) []string {
	t.Helper()
	return []string{"sh", "-eu", d.keep(t, name+".sh", source)}
}
