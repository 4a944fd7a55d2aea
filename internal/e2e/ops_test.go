//go:build linux

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/ipcd/ipcd/client"
)

// freePort returns a TCP port of an address that nobody uses now.
func freePort(t *testing.T, host string) string {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// browser asks the HTTP door at an address: host:port, or unix:/path.
func browser(address string) *http.Client {
	return &http.Client{Timeout: patience, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			if path, is := strings.CutPrefix(address, "unix:"); is {
				return new(net.Dialer).DialContext(ctx, "unix", path)
			}
			return new(net.Dialer).DialContext(ctx, network, address)
		},
	}}
}

// get fetches a path.
func get(t *testing.T, b *http.Client, path string) (status int, body string) {
	t.Helper()
	r, err := b.Get("http://localhost" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(text)
}

// parseMetrics reads the text format of Prometheus.
func parseMetrics(t *testing.T, text string) map[string]*dto.MetricFamily {
	t.Helper()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return families
}

// value returns a gauge or counter with these labels.
func value(t *testing.T, families map[string]*dto.MetricFamily, name string, labels map[string]string) float64 {
	t.Helper()
	for _, m := range families[name].GetMetric() {
		have := map[string]string{}
		for _, l := range m.Label {
			have[l.GetName()] = l.GetValue()
		}
		if maps.Equal(have, labels) {
			return m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	t.Errorf("there is no %s%v", name, labels)
	return -1
}

func TestOperatorsLookOverHTTP(t *testing.T) {
	t.Parallel()
	address := "127.0.0.1:" + freePort(t, "127.0.0.1")
	d := start(t, "--http", address)
	q := createNamed(t, d.dial(t), "/depth", memory())
	send(t, q, text("a", "b", "c")...)
	receiveOne(t, q)
	d.ctl(t, "ring", "create", "/r", "--capacity", "64KiB").ok(t)
	b := browser(address)
	status, text := get(t, b, "/metrics")
	if status != 200 {
		t.Fatalf("status %d: %s", status, text)
	}
	families := parseMetrics(t, text)
	for state, want := range map[string]float64{"ready": 2, "leased": 1, "delayed": 0, "buried": 0} {
		if got := value(t, families, "ipcd_queue_messages", map[string]string{"queue": "/depth", "state": state}); got != want {
			t.Errorf("%v messages are %s, want %v", got, state, want)
		}
	}
	if got := value(t, families, "ipcd_queue_sent_total", map[string]string{"queue": "/depth"}); got != 3 {
		t.Errorf("%v messages were sent", got)
	}
	if got := value(t, families, "ipcd_rings", map[string]string{}); got != 1 {
		t.Errorf("%v rings", got)
	}
	if got := value(t, families, "ipcd_connections", map[string]string{"door": "unix"}); got < 1 {
		t.Errorf("%v connections", got)
	}
	if families["ipcd_calls_total"] == nil || families["ipcd_journal_sync_duration_seconds"] == nil || families["ipcd_quota_limit"] == nil {
		t.Error("metrics of calls, journal or quotas are missing")
	}
	same := parseMetrics(t, d.ctl(t, "metrics").ok(t))
	if http, ctl := slices.Sorted(maps.Keys(families)), slices.Sorted(maps.Keys(same)); !slices.Equal(http, ctl) {
		t.Errorf("over HTTP there are %q, of ipcctl %q", http, ctl)
	}

	for path, want := range map[string]string{"/healthz": "ok\n", "/readyz": "ready\n"} {
		if status, text := get(t, b, path); status != 200 || text != want {
			t.Errorf("%s: %d %q", path, status, text)
		}
	}
	if status, text := get(t, b, "/debug/pprof/goroutine?debug=1"); status != 200 || !strings.Contains(text, "goroutine profile") {
		t.Errorf("profiles on loopback: %d %.100q", status, text)
	}
	for path, want := range map[string]int{"/nothing": 404, "/debug/pprof/profile?seconds=100000": 400} {
		if status, _ := get(t, b, path); status != want {
			t.Errorf("%s: %d, want %d", path, status, want)
		}
	}
	r, err := b.Post("http://localhost/metrics", "text/plain", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if r.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", r.StatusCode)
	}

	// While it stops, what balances load learns so.
	d.signal(syscall.SIGTERM)
	d.log.await(t, d, "ipcd stops")
	eventually(t, "it is not ready any more", func() bool {
		r, err := b.Get("http://localhost/readyz")
		if err != nil {
			return false
		}
		defer r.Body.Close()
		text, _ := io.ReadAll(r.Body)
		return r.StatusCode == 503 && bytes.Contains(text, []byte("stopping"))
	})
}

func TestProfilesAreForTheHostAlone(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	path := filepath.Join(dir, "http.sock")
	d := startIn(t, dir, "--http", "unix:"+path)
	if status, _ := get(t, browser("unix:"+path), "/debug/pprof/heap?debug=1"); status != 200 {
		t.Errorf("at a unix socket: %d", status)
	}
	if i, err := os.Stat(path); err != nil || i.Mode().Perm() != 0o660 {
		t.Errorf("the socket: %v, %v, want mode 0660", i, err)
	}
	d.signal(syscall.SIGTERM)
	d.awaitExit(t)
	if _, err := os.Stat(path); err == nil {
		t.Error("the socket is still there")
	}

	port := freePort(t, "0.0.0.0")
	start(t, "--http", "0.0.0.0:"+port)
	b := browser("127.0.0.1:" + port)
	if status, _ := get(t, b, "/metrics"); status != 200 {
		t.Errorf("metrics from afar: %d", status)
	}
	for _, path := range []string{"/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/profile?seconds=1", "/debug/pprof/cmdline", "/debug//pprof/heap", "/./debug/pprof/heap"} {
		if status, _ := get(t, b, path); status != 404 {
			t.Errorf("%s from afar: %d, want 404", path, status)
		}
	}
}

func TestCheckSaysWhatMonitoringExpects(t *testing.T) {
	t.Parallel()
	needsRoot(t)
	d := start(t)
	q := createNamed(t, d.dial(t), "/jobs", memory())
	send(t, q, text("a", "b", "c")...)
	d.ctl(t, "ring", "create", "/ticks", "--capacity", "64KiB").ok(t)
	for _, c := range []struct {
		exit      int
		arguments string
		says      []string
	}{
		{0, "", []string{"IPCD OK", "1 queue", "|", "'messages'=3"}},
		{0, "jobs --depth-warning 3 --depth-critical 9", []string{"IPCD OK", "'/jobs ready'=3;3;9;0"}},
		{1, "jobs --depth-warning 2", []string{"IPCD WARNING", "/jobs", "3 ready, more than 2"}},
		{2, "--depth-warning 1 --depth-critical 2", []string{"IPCD CRITICAL", "/jobs"}},
		{2, "--age-critical 0s", []string{"IPCD CRITICAL", "oldest"}},
		{0, "--ring ticks --lag-critical 0", []string{"IPCD OK"}},
		{3, "missing --depth-warning 1", []string{"IPCD UNKNOWN", "missing"}},
		{3, "--depth-warning 9 --depth-critical 1", []string{"IPCD UNKNOWN", "never be seen"}},
		{3, "--dance", []string{"IPCD UNKNOWN", "unknown flag"}},
		{3, "--depth-warning many", []string{"IPCD UNKNOWN"}},
		{2, "--address " + filepath.Join(shortDir(t), "nobody"), []string{"IPCD CRITICAL", "no ipcd answers"}},
		{2, "--timeout 200ms --address " + deafSocket(t), []string{"IPCD CRITICAL", "200ms"}},
	} {
		r := d.ctl(t, append([]string{"check"}, strings.Fields(c.arguments)...)...)
		first, _, _ := strings.Cut(r.out, "\n")
		if r.exit != c.exit {
			t.Errorf("check %s: exit %d, want %d: %s%s", c.arguments, r.exit, c.exit, r.out, r.err)
		}
		for _, word := range c.says {
			if !strings.Contains(first, word) {
				t.Errorf("check %s does not say %q: %s%s", c.arguments, word, r.out, r.err)
			}
		}
	}
	if r := d.as(t, nil, "ipcctl", "check"); r.exit != 0 {
		t.Errorf("an ordinary user's check: exit %d: %s%s", r.exit, r.out, r.err)
	}
	if r := d.as(t, nil, "ipcctl", "check", "jobs"); r.exit != 3 {
		t.Errorf("check of a queue that one may not see: exit %d: %s%s", r.exit, r.out, r.err)
	}
	receiveOne(t, q)
	d.signal(syscall.SIGTERM)
	d.log.await(t, d, "ipcd stops")
	eventually(t, "a daemon that stops is critical", func() bool { return d.ctl(t, "check").exit == 2 })
	d.signal(syscall.SIGINT)
	d.awaitExit(t)
	if r := d.ctl(t, "check"); r.exit != 2 || !strings.HasPrefix(r.out, "IPCD CRITICAL") {
		t.Errorf("when the daemon is gone: exit %d: %s%s", r.exit, r.out, r.err)
	}
}

// clientJSON is what ipcctl clients shows.
type clientJSON struct {
	Door   string
	Caller struct {
		PID  int
		UID  *uint32
		Kind string
	}
	Command string
	Uses    []struct {
		Method, Name        string
		Outstanding, Behind uint64
	}
}

// clients returns the connections that ipcctl shows.
func (r result) clients(t *testing.T) []clientJSON {
	t.Helper()
	var document struct{ Clients []clientJSON }
	unmarshal(t, r.ok(t), &document)
	return document.Clients
}

func TestClientsShowWhoDoesWhatAndHowFarBehind(t *testing.T) {
	t.Parallel()
	needsRoot(t)
	d := start(t)
	q := createNamed(t, d.dial(t), "/jobs", memory(func(s *client.QueueSettings) { s.Mode = new(uint32(0o666)) }))
	slow := createNamed(t, d.dial(t), "/slow", memory())
	send(t, slow, text("1", "2", "3", "4", "5")...)
	ctx, stop := context.WithCancel(within(t))
	ended := make(chan error, 1)
	go func() {
		ended <- slow.Consume(ctx, func(ctx context.Context, _ *client.Delivery) error { <-ctx.Done(); return ctx.Err() }, client.ConsumeOptions{Prefetch: 2, Concurrency: 1, Grace: time.Nanosecond})
	}()
	if _, err := d.dial(t).CreateRing(within(t), "/ticks", client.RingSettings{CapacityBytes: 64 << 10}); err != nil {
		t.Fatal(err)
	}
	consumer := background(t, d.command(within(t), "ipcctl", "recv", "/jobs", "--follow", "--ack"))
	producer := d.join(t, "producer", memberOptions{Ring: "/ticks", Largest: 64, Pace: 5 * time.Millisecond})
	member := d.join(t, "consumer", memberOptions{Ring: "/ticks", Largest: 64})
	anonymous := dial(t, d.tcp, client.WithInsecure())
	if _, err := anonymous.Info(within(t)); err != nil {
		t.Fatal(err)
	}
	find := func(pid int) *clientJSON {
		for _, c := range d.ctl(t, "clients", "-o", "json").clients(t) {
			if c.Caller.PID == pid {
				return &c
			}
		}
		return nil
	}
	pid := consumer.cmd.Process.Pid
	awaitStats(t, q, "it consumes", func(s client.QueueStats) bool { return s.Receivers == 1 })
	if c := find(pid); c == nil || c.Door != "unix" || c.Command != "ipcctl" || *c.Caller.UID != 0 || len(c.Uses) != 1 || c.Uses[0].Method != "Receive" || c.Uses[0].Name != "/jobs" {
		t.Errorf("the consumer is shown as %+v", c)
	}
	eventually(t, "the slow consumer is shown with its backlog", func() bool {
		some := d.ctl(t, "clients", "slow", "-o", "json").clients(t)
		return len(some) == 1 && len(some[0].Uses) == 1 && some[0].Uses[0].Behind == 3
	})
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	for pid, method := range map[int]string{producer.pid(): "produce", member.pid(): "consume"} {
		if c := find(pid); c == nil || c.Door != "attach" || len(c.Uses) != 1 || c.Uses[0].Method != method || c.Uses[0].Name != "/ticks" || c.Command == "" {
			t.Errorf("the %sr is shown as %+v", method, c)
		}
	}
	if all := d.ctl(t, "clients", "-o", "json").clients(t); !slices.ContainsFunc(all, func(c clientJSON) bool { return c.Door == "tcp" && c.Caller.Kind == "anonymous" && c.Caller.UID == nil }) {
		t.Errorf("the caller on TCP is not among %+v", all)
	}
	if own := d.as(t, nil, "ipcctl", "clients", "-o", "json").clients(t); len(own) != 1 || *own[0].Caller.UID != strangerUID {
		t.Errorf("an ordinary user sees %+v", own)
	}
	if some := d.ctl(t, "clients", "tick*", "-o", "json").clients(t); len(some) != 2 {
		t.Errorf("of /ticks there are %+v", some)
	}
	if table := d.ctl(t, "clients").ok(t); !strings.Contains(table, fmt.Sprint(pid)) || !strings.Contains(table, "Receive /jobs") {
		t.Errorf("the table is\n%s", table)
	}
	member.signal(t, syscall.SIGSTOP)
	eventually(t, "the stopped member is behind", func() bool { c := find(member.pid()); return c != nil && len(c.Uses) == 1 && c.Uses[0].Behind > 0 })
	member.signal(t, syscall.SIGCONT)
	_ = consumer.cmd.Process.Kill()
	eventually(t, "who is gone is not shown", func() bool { return find(pid) == nil })
}

func TestClientsShowWhatIsDeliveredAndNotSettled(t *testing.T) {
	t.Parallel()
	d := start(t)
	q := createNamed(t, d.dial(t), "/slow", memory())
	send(t, q, text("1", "2", "3", "4", "5")...)
	ctx, stop := context.WithCancel(within(t))
	ended := make(chan error, 1)
	go func() {
		ended <- q.Consume(ctx, func(ctx context.Context, _ *client.Delivery) error { <-ctx.Done(); return ctx.Err() }, client.ConsumeOptions{Prefetch: 2, Grace: time.Nanosecond})
	}()
	eventually(t, "two messages are outstanding", func() bool {
		some := d.ctl(t, "clients", "slow", "-o", "json").clients(t)
		return len(some) == 1 && len(some[0].Uses) == 1 && some[0].Uses[0].Outstanding == 2 && some[0].Uses[0].Behind == 3
	})
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
