package shmring

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/ipcd/ipcd/internal/attach"
	"github.com/ipcd/ipcd/transport"
)

// doing is what others may know of a connection.
type doing struct {
	id        uint64
	connected time.Time
	command   string // what the process called itself then

	mu       sync.Mutex // guards what follows
	requests uint64     // that have been served
	member   Member     // nil: it is none
	role     attach.Role
	ring     string
	since    time.Time
}

// served counts a request.
func (d *doing) served() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.requests++
}

// joined says of which ring it is a member.
func (d *doing) joined(m Member, role attach.Role, ring string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.member, d.role, d.ring, d.since = m, role, ring, time.Now()
}

// left is called before the member leaves.
func (d *doing) left() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.member = nil
}

// Connections returns how many connections there are.
func (s *Server) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// Clients returns the connections, the oldest first.
func (s *Server) Clients() []transport.Client {
	s.mu.Lock()
	conns := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	s.mu.Unlock()
	slices.SortFunc(conns, func(a, b *conn) int { return cmp.Compare(a.doing.id, b.doing.id) })
	clients := make([]transport.Client, 0, len(conns))
	for _, c := range conns {
		clients = append(clients, c.client())
	}
	return clients
}

func (c *conn) client() transport.Client {
	d := &c.doing
	t := transport.Client{ID: d.id, Door: "attach", Who: c.id, Command: d.command, Connected: d.connected}
	d.mu.Lock()
	t.CallsTotal = d.requests
	member, use := d.member, transport.ClientUse{Method: "produce", Name: d.ring, Since: d.since}
	if d.role == attach.Consumer {
		use.Method = "consume"
	}
	d.mu.Unlock()
	if member != nil {
		use.Behind = member.Behind()
		t.Uses = []transport.ClientUse{use}
	}
	return t
}
