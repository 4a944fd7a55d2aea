package ops

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"runtime/trace"
	"strings"
	"testing"

	"github.com/ipcd/ipcd/broker"
	"github.com/ipcd/ipcd/internal/limits"
)

// client is an HTTP client of a server's address.
func client(t *testing.T, at net.Addr) *http.Client {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, at.Network(), at.String())
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// ask makes one request and returns the status, the header and the body.
func ask(t *testing.T, c *http.Client, method, path string) (int, http.Header, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://ipcd"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, response.Header, string(body)
}

func dial(t *testing.T, at net.Addr) net.Conn {
	t.Helper()
	c, err := net.Dial(at.Network(), at.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestPathsAnswer(t *testing.T) {
	health, ready := error(nil), error(nil)
	s := newServer(t, Options{Broker: &fakeBroker{queues: []broker.Info{sent(1, "/jobs", 3)}}, Version: "v1.2.3",
		Health: func(context.Context) error { return health }, Ready: func() error { return ready }})
	c := client(t, serve(t, s, "unix:"+filepath.Join(t.TempDir(), "http.sock")))
	expect := func(method, path string, status int, has string) {
		t.Helper()
		if got, _, body := ask(t, c, method, path); got != status || !strings.Contains(body, has) {
			t.Errorf("%s %s: %d %q", method, path, got, body)
		}
	}
	expect("GET", "/healthz", 200, "ok\n")
	expect("GET", "/readyz", 200, "ready\n")
	health, ready = errors.New("the journal does not move"), errors.New("recovering")
	expect("GET", "/healthz", 503, "the journal does not move\n")
	expect("GET", "/readyz", 503, "recovering\n")
	expect("GET", "/", 200, "/debug/pprof/")
	expect("GET", "/", 200, "v1.2.3")
	expect("GET", "/nothing", 404, "")
	expect("GET", "/metrics", 200, "ipcd_queue_sent_total{queue=\"/jobs\"} 3\n")
	expect("GET", "/debug/pprof/", 200, "goroutine")
	expect("GET", "/debug/pprof/goroutine?debug=1", 200, "goroutine profile")
	for _, method := range []string{"POST", "PUT", "DELETE", "CONNECT", "BREW"} {
		expect(method, "/metrics", 405, "")
		expect(method, "/debug/pprof/symbol", 405, "")
	}
	if status, header, body := ask(t, c, "HEAD", "/metrics"); status != 200 || body != "" || header.Get("Content-Type") != "text/plain; version=0.0.4; charset=utf-8" {
		t.Errorf("HEAD: %d %v %q", status, header, body)
	}
}

func TestProfilesThatGoOnForTooLongAreRefused(t *testing.T) {
	s := newServer(t, Options{})
	for _, seconds := range []string{"301", "-1", "NaN", "1e9", "x"} {
		for _, profile := range []string{"profile", "trace", "heap"} {
			if r := get(s, "/debug/pprof/"+profile+"?seconds="+seconds); r.Code != 400 || !strings.Contains(r.Body.String(), "0 to 300") {
				t.Errorf("%s of %s seconds: %d %.100q", profile, seconds, r.Code, r.Body)
			}
		}
	}
}

func TestProfilesAreOnlyForThisHost(t *testing.T) {
	for address, want := range map[string]bool{"127.0.0.1:0": true, "[::1]:0": true, "0.0.0.0:0": false} {
		l, err := Listen(address)
		if err != nil && strings.HasPrefix(address, "[") {
			continue // there is no IPv6
		}
		if err != nil {
			t.Fatal(err)
		}
		if local(l.Addr()) != want {
			t.Errorf("%s: local is %v", address, !want)
		}
		l.Close()
	}
	s := newServer(t, Options{})
	c := client(t, serve(t, s, "0.0.0.0:0"))
	if status, _, _ := ask(t, c, "GET", "/debug/pprof/"); status != 404 {
		t.Errorf("profiles for everybody: %d", status)
	}
	if _, _, body := ask(t, c, "GET", "/"); strings.Contains(body, "pprof") {
		t.Errorf("the index has them: %q", body)
	}
}

func TestProfilesEndAtStop(t *testing.T) {
	s := newServer(t, Options{})
	c := client(t, serve(t, s, "unix:"+filepath.Join(t.TempDir(), "http.sock")))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		response, err := c.Get("http://ipcd/debug/pprof/trace?seconds=300")
		if err == nil {
			_, _ = io.Copy(io.Discard, response.Body)
			response.Body.Close()
		}
	}()
	for !trace.IsEnabled() {
		if t.Context().Err() != nil {
			t.Fatal("no trace began")
		}
	}
	stop(t, s)
	<-ended
	if trace.IsEnabled() {
		t.Error("the trace goes on")
	}
}

func TestSlowReaderHoldsNobodyUp(t *testing.T) {
	b := &fakeBroker{}
	for i := range uint64(limits.MetricsQueues) {
		b.queues = append(b.queues, sent(i+1, fmt.Sprintf("/%0100d", i), i)) // megabytes: more than a socket holds
	}
	s := newServer(t, Options{Broker: b})
	at := serve(t, s, "unix:"+filepath.Join(t.TempDir(), "http.sock"))
	for range 10 {
		slow := dial(t, at)
		fmt.Fprint(slow, "GET /metrics HTTP/1.1\r\nHost: ipcd\r\n\r\n")
		if line, err := bufio.NewReaderSize(slow, 16).ReadString('\n'); err != nil || line != "HTTP/1.1 200 OK\r\n" {
			t.Fatalf("%q %v", line, err)
		}
	}
	if status, _, body := ask(t, client(t, at), "GET", "/metrics"); status != 200 || len(body) < 2<<20 {
		t.Errorf("%d, %d bytes", status, len(body))
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	s.Stop(ctx) // answers that nobody takes are cut off
}

func TestSilentConnectionsTakeNobodysPlace(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	s := newServer(t, Options{Broker: &fakeBroker{}, Ready: func() error {
		entered <- struct{}{}
		<-release
		return nil
	}})
	at := serve(t, s, "unix:"+filepath.Join(t.TempDir(), "http.sock"))
	busy := dial(t, at)
	fmt.Fprint(busy, "GET /readyz HTTP/1.1\r\nHost: ipcd\r\n\r\n")
	<-entered
	var silent []net.Conn
	for i := range limits.HTTPConns - 1 {
		c := dial(t, at)
		if i%2 == 1 {
			fmt.Fprint(c, "GET /metr") // and no more
		}
		silent = append(silent, c)
	}
	for s.connected() < limits.HTTPConns {
		if t.Context().Err() != nil {
			t.Fatal("they are not accepted")
		}
	}
	for range 3 {
		if status, _, body := ask(t, client(t, at), "GET", "/healthz"); status != 200 {
			t.Errorf("%d %q", status, body)
		}
	}
	if _, err := silent[0].Read(make([]byte, 1)); err == nil {
		t.Error("the oldest silent connection got something")
	}
	if n := s.connected(); n > limits.HTTPConns {
		t.Errorf("%d connections", n)
	}
	close(release)
	if line, err := bufio.NewReader(busy).ReadString('\n'); err != nil || line != "HTTP/1.1 200 OK\r\n" {
		t.Errorf("who was being answered: %q %v", line, err)
	}
	stop(t, s)
	if _, err := silent[len(silent)-2].Read(make([]byte, 1)); err == nil {
		t.Error("a silent connection got something")
	}
}

func TestOneTooManyGoesWhenAllAreBeingAnswered(t *testing.T) {
	entered, release := make(chan struct{}, limits.HTTPConns+1), make(chan struct{})
	s := newServer(t, Options{Broker: &fakeBroker{}, Ready: func() error {
		entered <- struct{}{}
		<-release
		return nil
	}})
	at := serve(t, s, "unix:"+filepath.Join(t.TempDir(), "http.sock"))
	for range limits.HTTPConns {
		fmt.Fprint(dial(t, at), "GET /readyz HTTP/1.1\r\nHost: ipcd\r\n\r\n")
		<-entered
	}
	if _, err := dial(t, at).Read(make([]byte, 1)); err == nil {
		t.Error("it got something")
	}
	if n := s.connected(); n != limits.HTTPConns {
		t.Errorf("%d connections", n)
	}
	close(release)
	scrape(t, s).want(t, limits.HTTPConns, "ipcd_connections", "door", "http")
}

func TestOnLoopbackOnlyItsOwnNamesAreServed(t *testing.T) {
	s := newServer(t, Options{Broker: &fakeBroker{}})
	serves := func(at, host string) bool {
		t.Helper()
		address, err := net.ResolveTCPAddr("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
		r.Host = host
		w := httptest.NewRecorder()
		s.handler(address).ServeHTTP(w, r)
		if w.Code != http.StatusOK && (w.Code != http.StatusMisdirectedRequest || !strings.Contains(w.Body.String(), "localhost")) {
			t.Errorf("%s at %s: %d %q", host, at, w.Code, w.Body)
		}
		return w.Code == http.StatusOK
	}
	for _, host := range []string{"localhost", "LocalHost:9475", "127.0.0.1", "127.0.0.1:9475", "127.9.9.9:1", "[::1]", "[::1]:9475"} {
		if !serves("127.0.0.1:9475", host) || !serves("[::1]:9475", host) {
			t.Errorf("%s is refused", host)
		}
	}
	for _, host := range []string{"", "evil.example", "evil.example:9475", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1", "[::2]:9475", "0.0.0.0:9475"} {
		if serves("127.0.0.1:9475", host) || serves("[::1]:9475", host) {
			t.Errorf("%q is served on loopback", host)
		}
		if !serves("0.0.0.0:9475", host) {
			t.Errorf("%q is refused elsewhere", host)
		}
	}
}

func TestGarbageAndLongHeadersAreRefused(t *testing.T) {
	s := newServer(t, Options{})
	at := serve(t, s, "unix:"+filepath.Join(t.TempDir(), "http.sock"))
	for request, want := range map[string]string{
		"\x16\x03\x01\x00\xff\x00\r\n\r\n":                                               "400",
		"GET / HTTP/1.1\r\nHost: ipcd\r\nX: " + strings.Repeat("x", 64<<10) + "\r\n\r\n": "431",
	} {
		c := dial(t, at)
		go func() { _, _ = io.WriteString(c, request) }() // which may be cut off in the middle
		line, err := bufio.NewReader(c).ReadString('\n')
		if err != nil || !strings.Contains(line, want) {
			t.Errorf("%.20q: %q %v", request, line, err)
		}
	}
}

func TestServeAfterStopClosesTheListener(t *testing.T) {
	s := newServer(t, Options{})
	stop(t, s)
	path := filepath.Join(t.TempDir(), "http.sock")
	l, err := Listen("unix:" + path)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(l); err != nil {
		t.Error(err)
	}
	if c, err := net.Dial("unix", path); err == nil {
		c.Close()
		t.Error("somebody listens")
	}
}
