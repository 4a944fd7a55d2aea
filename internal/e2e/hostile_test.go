//go:build linux

package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/ipcd/ipcd/client"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// hostileMemory is how much more memory than before the daemon may ever have taken while strangers do their worst. The
// race detector multiplies what a program takes by five to ten. A frame that a peer announced would alone be 32 MiB.
const hostileMemory = 768 << 20

// peakMemory returns the largest resident set of a process so far, VmHWM of proc_pid_status(5), in bytes.
func peakMemory(t *testing.T, pid int) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, is := strings.CutPrefix(line, "VmHWM:"); is {
			n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n << 10
		}
	}
	t.Fatal("no VmHWM")
	return 0
}

// besieged is a daemon with all its doors open, and what it held when nobody had come yet.
type besieged struct {
	*daemon
	http               string
	files              int
	goroutines, memory int64
}

func besiege(t *testing.T) *besieged {
	t.Helper()
	dir := shortDir(t)
	b := &besieged{http: filepath.Join(dir, "http.sock")}
	b.daemon = startIn(t, dir, "--http", "unix:"+b.http)
	c := b.dial(t)
	createNamed(t, c, "/q.anyone", memory(func(s *client.QueueSettings) { s.Mode, s.MaxMessageSize = new(uint32(0o666)), new(1<<20) }))
	b.ctl(t, "ring", "create", "/r", "--capacity", "64KiB", "--mode", "0666").ok(t)
	b.served(t)
	_ = c.Close()
	b.settled(t, func(files int, goroutines int64) bool {
		quiet := files == b.files && goroutines == b.goroutines
		b.files, b.goroutines = files, goroutines
		return quiet
	})
	b.memory = peakMemory(t, b.cmd.Process.Pid)
	return b
}

// settled waits until descriptors and goroutines are as said, as the metrics tell.
func (b *besieged) settled(t *testing.T, holds func(files int, goroutines int64) bool) {
	t.Helper()
	files, goroutines := 0, int64(0)
	defer func() {
		if t.Failed() {
			t.Logf("%d descriptors and %d goroutines, at first %d and %d", files, goroutines, b.files, b.goroutines)
		}
	}()
	browser := browser("unix:" + b.http)
	eventually(t, "descriptors and goroutines are as they should be", func() bool {
		_, text := get(t, browser, "/metrics")
		goroutines = int64(value(t, parseMetrics(t, text), "go_goroutines", map[string]string{}))
		files = descriptors(t, b.cmd.Process.Pid)
		return holds(files, goroutines)
	})
}

// served fails unless others are served, at all doors.
func (b *besieged) served(t *testing.T) {
	t.Helper()
	for _, c := range []*client.Client{b.dial(t), dial(t, b.tcp, client.WithInsecure())} {
		q := c.Queue("/q.anyone")
		send(t, q, client.Message{Type: 7, Body: []byte("m")})
		if m := receive(t, q, 1, client.ReceiveOptions{AtOnce: true, Selector: client.Type(7)}); string(m[0].Body) != "m" {
			t.Errorf("received %q", m[0].Body)
		}
		_ = c.Close()
	}
	m := b.join(t, "producer", memberOptions{Ring: "/r", Largest: 64, Pace: time.Hour})
	m.stop(t)
	if status, _ := get(t, browser("unix:"+b.http), "/healthz"); status != 200 {
		t.Errorf("/healthz: %d", status)
	}
}

// unscathed fails unless the daemon is as it was before.
func (b *besieged) unscathed(t *testing.T) {
	t.Helper()
	b.settled(t, func(files int, goroutines int64) bool { return files <= b.files && goroutines <= b.goroutines })
	if more := peakMemory(t, b.cmd.Process.Pid) - b.memory; more > hostileMemory {
		t.Errorf("it took %d MiB more than before, at most %d may be", more>>20, hostileMemory>>20)
	}
	b.served(t)
}

func TestGarbageAtAllDoorsLeavesNothing(t *testing.T) {
	t.Parallel()
	b := besiege(t)
	random := seedOf(t)
	noise := func(n int) []byte {
		text := make([]byte, n)
		for i := range text {
			text[i] = byte(random.Uint32())
		}
		return text
	}
	kinds := [][]byte{
		nil, noise(1), noise(24), noise(4 << 10), noise(256 << 10), make([]byte, 64<<10),
		[]byte(preface[:len(preface)/2]), []byte(preface), append([]byte(preface), noise(8<<10)...),
		bytes.Repeat([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), 100), []byte("GET /" + strings.Repeat("a", 64<<10)),
		append([]byte{0x16, 3, 1, 0xff, 0xff}, noise(1<<10)...), bytes.Repeat([]byte{0xff}, 32<<10),
		append([]byte(preface), bytes.Repeat(frame(frameSetting, 0, 0, nil), 2000)...), // each wants an answer
		append([]byte(preface), bytes.Repeat(frame(6, 0, 0, make([]byte, 8)), 2000)...),
	}
	// Lengths that the attach protocol's packets claim, and that there is not.
	for _, length := range []uint32{0, 1, 8, 1 << 16, 1<<32 - 1} {
		packet := binary.LittleEndian.AppendUint32(nil, length)
		kinds = append(kinds, append(packet, noise(300)...))
	}
	var peers sync.WaitGroup
	for _, door := range [][2]string{{"unix", b.socket}, {"unixpacket", b.attach}, {"tcp", b.tcp}, {"unix", b.http}} {
		peers.Go(func() {
			for range 5 {
				for i, data := range kinds {
					conn, err := net.DialTimeout(door[0], door[1], patience)
					if err != nil {
						t.Errorf("%s: %v", door[1], err)
						return
					}
					_ = conn.SetDeadline(time.Now().Add(patience))
					_, _ = conn.Write(data)
					if i%2 == 0 && door[0] != "unixpacket" { // half closed, and read to the end: it must come
						_ = conn.(interface{ CloseWrite() error }).CloseWrite()
						if _, err := io.Copy(io.Discard, conn); err != nil && os.IsTimeout(err) {
							t.Errorf("%s: kind %d: the daemon does not hang up on who has", door[1], i)
						}
					}
					conn.Close()
				}
			}
		})
	}
	b.served(t)
	peers.Wait()
	b.unscathed(t)
}

func TestResetsAndHugeHeadersCostLittle(t *testing.T) {
	t.Parallel()
	b := besiege(t)
	var peers sync.WaitGroup
	for _, door := range [][2]string{{"unix", b.socket}, {"tcp", b.tcp}} {
		// Calls that are begun and reset at once, as of CVE-2023-44487.
		peers.Go(func() {
			conn, err := net.DialTimeout(door[0], door[1], patience)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			go io.Copy(io.Discard, conn)
			_ = conn.SetDeadline(time.Now().Add(patience))
			headers := call("application/grpc")[len(preface)+9+9:]
			_, _ = conn.Write(append([]byte(preface), frame(frameSetting, 0, 0, nil)...))
			for stream := uint32(1); stream < 20_000; stream += 2 {
				one := append(frame(frameHeaders, endHeaders, stream, headers), frame(frameReset, 0, stream, make([]byte, 4))...)
				if _, err := conn.Write(one); err != nil {
					return // it may well hang up
				}
			}
		})
		// Headers that never end: CONTINUATION upon CONTINUATION.
		peers.Go(func() {
			conn, err := net.DialTimeout(door[0], door[1], patience)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			go io.Copy(io.Discard, conn)
			_ = conn.SetDeadline(time.Now().Add(patience))
			_, _ = conn.Write(append([]byte(preface), frame(frameSetting, 0, 0, nil)...))
			_, err = conn.Write(frame(frameHeaders, 0, 1, field("x", strings.Repeat("y", 100))))
			for i := 0; i < 20_000 && err == nil; i++ {
				_, err = conn.Write(frame(9, 0, 1, bytes.Repeat(field("x-"+strings.Repeat("h", 60), strings.Repeat("v", 100)), 10)))
			}
			if err == nil {
				t.Error("the daemon takes 32 MiB of headers")
			}
		})
	}
	// The same over HTTP, and one who never comes to an end.
	for range 200 {
		peers.Go(func() {
			conn, err := net.DialTimeout("unix", b.http, patience)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(patience))
			_, err = io.WriteString(conn, "GET /metrics HTTP/1.1\r\nHost: x\r\n")
			for i := 0; err == nil; i++ {
				if i < 1000 {
					_, err = fmt.Fprintf(conn, "x-%d: %s\r\n", i, strings.Repeat("v", 1000))
					continue
				}
				_, err = conn.Read(make([]byte, 1<<10))
			}
			if os.IsTimeout(err) {
				t.Error("the daemon waits for the end of a header for ever")
			}
		})
	}
	slow := hold(t, "unix", b.http, 40) // say one byte, and no more
	for _, conn := range slow {
		_, _ = conn.Write([]byte("G"))
	}
	peers.Wait()
	for _, conn := range slow {
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		if _, err := io.Copy(io.Discard, conn); os.IsTimeout(err) {
			t.Fatal("the daemon waits for a request for ever")
		}
	}
	b.unscathed(t)
}

func TestIdleAndSilentPeersHarmNobody(t *testing.T) {
	t.Parallel()
	needsRoot(t)
	b := besiege(t)
	root := b.dial(t)
	for range 16 {
		send(t, root.Queue("/q.anyone"), client.Message{Body: make([]byte, 1<<20)})
	}
	// A thousand connections of a user who may have 512, and who does not even read why the others are refused.
	var idle []net.Conn
	for range 1000 {
		conn, err := stranger.connect("unix", b.socket)
		if err != nil {
			t.Fatal(err)
		}
		idle = append(idle, conn)
	}
	idle = append(idle, hold(t, "tcp", b.tcp, 300)...)
	idle = append(idle, hold(t, "unixpacket", b.attach, 200)...)
	idle = append(idle, hold(t, "unix", b.http, 30)...)

	// Peers who take what is sent to them until they are stopped: consumers, peeks and subscribers that never read.
	ctx, vanish := context.WithCancel(within(t))
	var silent []io.Closer
	for i := range 40 {
		conn := b.conn(t, grpc.WithInitialWindowSize(1<<20), grpc.WithInitialConnWindowSize(1<<20))
		if i%2 == 1 {
			var err error
			conn, err = grpc.NewClient(b.tcp, grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { conn.Close() })
		}
		silent = append(silent, conn)
		api := ipcdv1.NewMessageServiceClient(conn)
		if i%4 < 2 {
			if _, err := api.Peek(ctx, &ipcdv1.PeekRequest{Queue: "/q.anyone", Follow: true}); err != nil {
				t.Fatal(err)
			}
			continue
		}
		stream, err := api.Consume(ctx)
		if err != nil {
			t.Fatal(err)
		}
		_ = stream.Send(&ipcdv1.ConsumeRequest{Kind: &ipcdv1.ConsumeRequest_Open{Open: &ipcdv1.ConsumeOpen{Queue: "/q.anyone", Selector: nil}}})
		_ = stream.Send(&ipcdv1.ConsumeRequest{Kind: &ipcdv1.ConsumeRequest_Credit{Credit: &ipcdv1.Credit{Messages: uint64(1 + i%4)}}})
	}
	awaitStats(t, root.Queue("/q.anyone"), "messages are delivered to who does not read", func(s client.QueueStats) bool { return s.Leased > 4 })
	other := createNamed(t, root, "/other", memory())
	send(t, other, text("others")...)
	receiveOne(t, other)
	b.ctl(t, "info").ok(t)
	another := b.dialAs(t, caller{uid: strangerUID + 20, gid: strangerGID})
	if _, err := another.Info(within(t)); err != nil {
		t.Errorf("another user: %v", err)
	}
	_ = another.Close()
	vanish()
	for _, conn := range silent {
		conn.Close()
	}
	for _, conn := range idle {
		conn.Close()
	}
	awaitStats(t, root.Queue("/q.anyone"), "all are back", func(s client.QueueStats) bool { return s.Leased == 0 && s.Receivers == 0 })
	drain(t, root.Queue("/q.anyone"))
	b.ctl(t, "rm", "/other", "--force").ok(t)
	_ = root.Close()
	b.unscathed(t)
}

func TestHalfOpenConnectionsEnd(t *testing.T) {
	t.Parallel()
	d := startTLS(t)
	// A TLS handshake that is begun and not ended is cut off, whether something comes or nothing.
	var conns []net.Conn
	for i := range 50 {
		conn := hold(t, "tcp", d.tcp, 1)[0]
		if i%2 == 0 {
			_, _ = conn.Write([]byte{0x16, 3, 1})
		}
		conns = append(conns, conn)
	}
	d.ctlWithCertificate(t, d.clients.client(t, workerID, nil), "info").ok(t)
	for _, conn := range conns {
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		if _, err := io.Copy(io.Discard, conn); os.IsTimeout(err) {
			t.Fatal("the daemon waits for a handshake for ever")
		}
	}
}
