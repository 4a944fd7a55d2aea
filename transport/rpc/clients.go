package rpc

import (
	"context"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ipcd/ipcd/broker"
	"github.com/ipcd/ipcd/internal/access"
	"github.com/ipcd/ipcd/internal/identity"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
	"github.com/ipcd/ipcd/transport"
)

// usesListed is how many calls of a connection are listed, the oldest ones.
const usesListed = 64

// use is a call under way that names a queue or ring.
type use struct {
	method      string // without its service
	name        string
	since       time.Time
	outstanding func() uint64 // or nil
	ringMember  uint64        // or 0
}

// uses returns what the connection does, and how many calls are under way.
func (c *connection) uses() (out []use, calls int) {
	c.mu.Lock()
	for call := range c.calls {
		if call.name != "" {
			out = append(out, use{call.method[strings.LastIndexByte(call.method, '/')+1:], call.name, call.since, call.outstanding, call.ringMember})
		}
	}
	calls = len(c.calls)
	c.mu.Unlock()
	slices.SortFunc(out, func(a, b use) int { return a.since.Compare(b.since) })
	return out[:min(len(out), usesListed)], calls
}

// Connections returns how many connections there are at each door, those over a quota included.
func (s *Server) Connections() map[string]int { return s.conns.byDoor() }

// Clients returns the connections whose callers are known, by age. How far they are behind is left out.
func (s *Server) Clients() []transport.Client {
	return s.clients(func(identity.Identity, uint64) bool { return true }, func(use) uint64 { return 0 })
}

// clients returns the connections that are to be shown. behind tells how far a use is behind.
func (s *Server) clients(show func(who identity.Identity, id uint64) bool, behind func(use) uint64) []transport.Client {
	var out []transport.Client
	for _, c := range s.conns.list() {
		if !show(c.who, c.id) {
			continue
		}
		client := transport.Client{ID: c.id, Door: c.door, Who: c.who, Command: c.command, Connected: c.connected, CallsTotal: c.ended.Load()}
		if c.door == doorTCP {
			client.RemoteAddress = c.RemoteAddr().String()
		}
		if agent := c.userAgent.Load(); agent != nil {
			client.UserAgent = *agent
		}
		uses, calls := c.uses()
		client.Calls = calls
		for _, u := range uses {
			entry := transport.ClientUse{Method: u.method, Name: u.name, Since: u.since, Behind: behind(u)}
			if u.outstanding != nil {
				entry.Outstanding = u.outstanding()
			}
			client.Uses = append(client.Uses, entry)
		}
		out = append(out, client)
	}
	return out
}

// ListClients shows an admin all connections, others those of their own uid or certificate. Anonymous callers have
// nothing in common: each sees its own connection.
func (s system) ListClients(_ *ipcdv1.ListClientsRequest, stream grpc.ServerStreamingServer[ipcdv1.ListClientsResponse]) error {
	ctx := stream.Context()
	caller, admin, own := callerFrom(ctx), s.access.Admin(callerFrom(ctx)), connectionOf(ctx)
	mine := func(who identity.Identity) bool {
		return admin || who.Kind != identity.Anonymous && who.Principal() == caller.Principal()
	}
	b := backlogs{Server: s.Server, ctx: ctx, caller: caller, ready: map[string]uint64{}, lags: map[string]map[uint64]uint64{}}
	clients := s.clients(func(who identity.Identity, id uint64) bool { return id == own.id || mine(who) }, b.behind)
	if s.Server.system != nil {
		for _, client := range s.Server.system.Clients() {
			if mine(client.Who) {
				clients = append(clients, client)
			}
		}
	}
	for i := range clients {
		if err := stream.Send(&ipcdv1.ListClientsResponse{Client: s.encodeClient(&clients[i])}); err != nil {
			return streamEnded{err}
		}
	}
	return nil
}

func (s *Server) encodeClient(from *transport.Client) *ipcdv1.ClientConnection {
	out := &ipcdv1.ClientConnection{
		Id: from.ID, Door: from.Door, Caller: s.encodeCaller(from.Who), Command: from.Command, RemoteAddress: from.RemoteAddress,
		ConnectTime: timestamppb.New(from.Connected), Calls: uint32(from.Calls), CallsTotal: from.CallsTotal, UserAgent: from.UserAgent,
	}
	for _, u := range from.Uses {
		out.Uses = append(out.Uses, &ipcdv1.ClientUse{
			Method: u.Method, Name: u.Name, Since: timestamppb.New(u.Since), Outstanding: u.Outstanding, Behind: u.Behind,
		})
	}
	return out
}

// backlogs tells how far uses are behind, and asks about each queue and ring once. What the caller may not look at, or
// went away meanwhile, has no backlog.
type backlogs struct {
	*Server
	ctx    context.Context
	caller identity.Identity
	ready  map[string]uint64            // messages, by queue
	lags   map[string]map[uint64]uint64 // messages, by ring and consumer
}

func (b *backlogs) behind(u use) uint64 {
	switch {
	case u.ringMember != 0:
		if _, known := b.lags[u.name]; !known {
			b.lags[u.name] = b.lagsOf(u.name)
		}
		return b.lags[u.name][u.ringMember]
	case u.method == "Consume" || u.method == "Receive":
		if _, known := b.ready[u.name]; !known {
			info, _ := b.shown(b.ctx, b.caller, u.name)
			b.ready[u.name] = uint64(info.Stats.Ready)
		}
		return b.ready[u.name]
	}
	return 0
}

// own is the daemon's own identity, as which nothing is denied.
func (s *Server) own() identity.Identity {
	return identity.Identity{Kind: identity.Unix, UID: s.access.Policy().DaemonUID}
}

// shown returns a queue if the caller may look at it. If not, that is no denial to be counted and logged: nobody has asked
// for this queue.
func (s *Server) shown(ctx context.Context, caller identity.Identity, name string) (broker.Info, bool) {
	info, err := s.broker.GetQueue(ctx, s.own(), name)
	of := access.Object{Kind: access.Queue, Name: name, OwnerUID: info.Settings.OwnerUID, GroupGID: info.Settings.GroupGID, Mode: info.Settings.Mode}
	if err != nil || !s.access.Allows(caller, of, access.Look) {
		return broker.Info{}, false
	}
	return info, true
}

func (b *backlogs) lagsOf(name string) map[uint64]uint64 {
	lags := map[uint64]uint64{}
	info, err := b.rings.Get(b.ctx, b.own(), name)
	of := access.Object{Kind: access.Ring, Name: name, OwnerUID: info.Settings.OwnerUID, GroupGID: info.Settings.GroupGID, Mode: info.Settings.Mode}
	if err != nil || !b.access.Allows(b.caller, of, access.Look) {
		return lags
	}
	for i := range info.Consumers {
		lags[info.Consumers[i].ID] = info.Consumers[i].Lag
	}
	return lags
}
