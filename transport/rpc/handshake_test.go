package rpc

import (
	"crypto/tls"
	"net"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/connectivity"

	"github.com/ipcd/ipcd/internal/limits"
)

func TestClientWithoutHTTP2IsTurnedAway(t *testing.T) {
	h := serveTLS(t, Options{}, nil)
	conn, err := tls.Dial("tcp", h.tcp.Target(), h.config(h.clients.client(t, nil).tls()))
	if err == nil {
		defer conn.Close()
		_, err = conn.Read(make([]byte, 1))
	}
	if err == nil || !strings.Contains(err.Error(), "tls:") {
		t.Errorf("got %v, want an alert", err)
	}
	h.logged("TLS handshake failed", "ALPN")
}

func TestSilentHandshakeHoldsUpNoStop(t *testing.T) {
	h := serveTLS(t, Options{}, nil)
	h.silent(1)
	conn := h.dial(h.config(h.clients.client(t, nil).tls()))
	if _, err := whoIs(t, conn); err != nil {
		t.Fatal(err)
	}
	h.server.conns.stop()
	if n := h.server.Connections()["tcp"]; n != 1 || conn.GetState() != connectivity.Ready {
		t.Errorf("%d connections, that which makes calls %v; want it alone, ready", n, conn.GetState())
	}
	h.server.Stop(t.Context()) // which ends only with the test
}

func TestSilentHandshakesKeepNobodyOut(t *testing.T) {
	h := serveTLS(t, Options{}, nil)
	h.silent(limits.TLSHandshakes)
	oldest := h.oldest()
	if _, err := whoIs(t, h.dial(h.config(h.clients.client(t, nil).tls()))); err != nil {
		t.Fatal(err)
	}
	h.logged("TLS handshake failed", "given up")
	if now := h.oldest(); now != oldest+1 {
		t.Errorf("the oldest connection is number %d, want %d: the oldest one makes room", now, oldest+1)
	}
	if n := h.server.Connections()["tcp"]; n != limits.TLSHandshakes {
		t.Errorf("%d connections, want %d: one has made room for another", n, limits.TLSHandshakes)
	}
}

// oldest returns the number of the oldest connection.
func (h *tlsHarness) oldest() uint64 {
	h.server.conns.mu.Lock()
	defer h.server.conns.mu.Unlock()
	var ids []uint64
	for c := range h.server.conns.all {
		ids = append(ids, c.id)
	}
	return slices.Min(ids)
}

// silent opens connections that say nothing, one after the other.
func (h *tlsHarness) silent(n int) {
	h.t.Helper()
	for i := range n {
		c, err := net.Dial("tcp", h.tcp.Target())
		if err != nil {
			h.t.Fatal(err)
		}
		h.t.Cleanup(func() { c.Close() })
		eventually(h.t, "the handshake begins", func() bool {
			h.server.conns.mu.Lock()
			defer h.server.conns.mu.Unlock()
			return len(h.server.conns.handshaking) == i+1
		})
	}
}
