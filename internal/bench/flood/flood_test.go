//go:build linux

// Package flood measures what one user's flood does to another user's latency, with the real daemon: a victim sends one
// message at a time, durably, and receives it, as a process and a user of its own, alone (quiet) and while a flooder, a
// process and a user of its own too, does its worst. Quiet and flooded measurements take turns in one run.
//
// It needs root, to become those users: sudo go test -run '^$' -bench . -benchtime 7x ./internal/bench/flood
package flood

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ipcd/ipcd/client"
)

const (
	victimUID  = 64001
	flooderUID = 64002

	// measureFor is how long the victim is measured at a time.
	measureFor = 2 * time.Second

	// What the processes of this package are told.
	roleVariable = "IPCD_FLOOD_ROLE" // "victim", or a flood's name
	socketOf     = "IPCD_FLOOD_SOCKET"
	// daemonVariable names another build of ipcd to measure, to compare two.
	daemonVariable = "IPCD_FLOOD_DAEMON"
	// confineVariable is a command, as "nice -n 19", that the flooder is started with: what its own use of processors
	// costs the victim, and the daemon can do nothing about, goes away.
	confineVariable = "IPCD_FLOOD_CONFINE"
)

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVariable); role != "" {
		if err := play(role, os.Getenv(socketOf)); err != nil {
			fmt.Fprintln(os.Stderr, role+":", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// BenchmarkVictim runs b.N rounds for each kind of flood. It reports medians of the rounds: the victim's 99th percentile
// when quiet and when flooded, of sends and of receives, and the ratios of the two; the goal is 2.
func BenchmarkVictim(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("it takes root to start processes of other users")
	}
	bin := build(b)
	for _, kind := range floodNames() {
		b.Run(kind, func(b *testing.B) { rounds(b, bin, kind) })
	}
}

func rounds(b *testing.B, bin, kind string) {
	dir := shortDir(b)
	socket := startDaemon(b, bin, dir)
	c, err := client.Dial(socket)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	v := startRole(b, bin, socket, "victim", victimUID)
	v.expect(b, "ready")
	var all []round
	v.measure(b, measureFor/4) // what is only slow once
	for range b.N {
		var r round
		r.quiet = v.measure(b, measureFor)
		f := startRole(b, bin, socket, kind, flooderUID)
		f.expect(b, "flooding")
		r.flooded = v.measure(b, measureFor)
		f.endFlooding(b)
		all = append(all, r)
		deleteQueues(b, c, floodQueues)
		v.measure(b, measureFor/8) // until what the flood left behind is done with
	}
	b.ReportMetric(0, "ns/op") // a round takes as long as it is told to
	report(b, all)
}

func deleteQueues(b *testing.B, c *client.Client, glob string) {
	b.Helper()
	for q, err := range c.Queues(b.Context(), glob) {
		if err == nil {
			_, err = c.DeleteQueue(b.Context(), q.Name)
		}
		if err != nil && !errors.Is(err, client.ErrQueueNotFound) { // the flooder's last call may do it
			b.Fatal(err)
		}
	}
}

// round is a quiet and a flooded measurement, one after the other.
type round struct{ quiet, flooded measurement }

// report reports medians over all rounds.
func report(b *testing.B, all []round) {
	of := func(value func(r *round) float64) float64 {
		values := make([]float64, len(all))
		for i := range all {
			values[i] = value(&all[i])
		}
		slices.Sort(values)
		return values[len(values)/2]
	}
	for _, part := range []struct {
		name string
		of   func(m *measurement) *percentiles
	}{
		{"send", func(m *measurement) *percentiles { return &m.Send }},
		{"receive", func(m *measurement) *percentiles { return &m.Receive }},
	} {
		quiet := func(r *round) *percentiles { return part.of(&r.quiet) }
		flooded := func(r *round) *percentiles { return part.of(&r.flooded) }
		b.ReportMetric(of(func(r *round) float64 { return quiet(r).P99 }), part.name+"-quiet-p99-us")
		b.ReportMetric(of(func(r *round) float64 { return flooded(r).P99 }), part.name+"-flood-p99-us")
		b.ReportMetric(of(func(r *round) float64 { return flooded(r).P50 / quiet(r).P50 }), part.name+"-p50-ratio")
		b.ReportMetric(of(func(r *round) float64 { return flooded(r).P99 / quiet(r).P99 }), part.name+"-p99-ratio")
		b.ReportMetric(of(func(r *round) float64 { return flooded(r).P999 / quiet(r).P999 }), part.name+"-p99.9-ratio")
	}
}

// build puts the daemon and this program where every user may run them.
func build(b *testing.B) (bin string) {
	b.Helper()
	bin = shortDir(b)
	daemon := filepath.Join(bin, "ipcd")
	var err error
	if other := os.Getenv(daemonVariable); other != "" {
		err = copyProgram(other, daemon)
	} else {
		compile := exec.Command("go", "build", "-buildvcs=false", "-o", daemon, "./cmd/ipcd")
		compile.Dir = filepath.Join("..", "..", "..")
		var output []byte
		if output, err = compile.CombinedOutput(); err != nil {
			err = fmt.Errorf("build ipcd: %w\n%s", err, output)
		}
	}
	if err == nil {
		err = copyProgram("/proc/self/exe", filepath.Join(bin, "role"))
	}
	if err != nil {
		b.Fatal(err)
	}
	return bin
}

func copyProgram(from, to string) error {
	program, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, program, 0o755)
}

// shortDir returns a temporary directory that every user may enter, with room for a socket's name.
func shortDir(b *testing.B) string {
	b.Helper()
	dir, err := os.MkdirTemp("", "flood")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// startDaemon runs the daemon until the benchmark ends, and returns its socket.
func startDaemon(b *testing.B, bin, dir string) (socket string) {
	b.Helper()
	socket = filepath.Join(dir, "s")
	p := startProcess(b, exec.Command(filepath.Join(bin, "ipcd"), "--socket", socket, "--state-dir", filepath.Join(dir, "state")))
	p.expect(b, "ipcd started")
	go func() { // or it would wait for somebody to read its log
		for p.lines.Scan() {
		}
	}()
	return socket
}

// startRole runs this program as another user.
func startRole(b *testing.B, bin, socket, role string, uid uint32) *process {
	b.Helper()
	command := []string{filepath.Join(bin, "role")}
	if role != "victim" {
		command = append(strings.Fields(os.Getenv(confineVariable)), command...)
	}
	c := exec.Command(command[0], command[1:]...)
	c.Env = append(os.Environ(), roleVariable+"="+role, socketOf+"="+socket)
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	return startProcess(b, c)
}

// process is one that is spoken to in lines: on its standard input, and with what it says on either output.
type process struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines *bufio.Scanner
}

func startProcess(b *testing.B, c *exec.Cmd) *process {
	b.Helper()
	in, err := c.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	c.Stderr = c.Stdout
	if c.SysProcAttr == nil {
		c.SysProcAttr = new(syscall.SysProcAttr)
	}
	c.SysProcAttr.Pdeathsig = syscall.SIGKILL
	if err := c.Start(); err != nil {
		b.Fatal(err)
	}
	p := &process{cmd: c, in: in, lines: bufio.NewScanner(out)}
	b.Cleanup(p.end)
	return p
}

// expect reads until a line that contains what is said, and returns it.
func (p *process) expect(b *testing.B, what string) string {
	b.Helper()
	var seen []string
	for p.lines.Scan() {
		if strings.Contains(p.lines.Text(), what) {
			return p.lines.Text()
		}
		seen = append(seen, p.lines.Text())
	}
	b.Fatalf("%s: it ended without saying %q: %s", p.cmd.Path, what, strings.Join(seen, "\n"))
	return ""
}

// measure has the victim measure for a while.
func (p *process) measure(b *testing.B, d time.Duration) (m measurement) {
	b.Helper()
	_, err := fmt.Fprintln(p.in, d)
	if err == nil {
		err = json.Unmarshal([]byte(p.expect(b, "{")), &m)
	}
	if err == nil && m.Count == 0 {
		err = errors.New("nothing came through")
	}
	if err != nil {
		b.Fatal(err)
	}
	return m
}

// endFlooding is end of a flooder, which must have gone on until then.
func (p *process) endFlooding(b *testing.B) {
	b.Helper()
	_ = p.cmd.Process.Kill()
	var said []string
	for p.lines.Scan() {
		said = append(said, p.lines.Text())
	}
	_ = p.cmd.Wait()
	if !p.cmd.ProcessState.Sys().(syscall.WaitStatus).Signaled() {
		b.Fatalf("the flood ended by itself: %s", strings.Join(said, "\n"))
	}
}

// end kills the process and waits until it is gone.
func (p *process) end() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}
