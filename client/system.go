package client

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"

	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// CheckHealth returns nil if the daemon says that it can do its work, else ErrUnhealthy.
func (c *Client) CheckHealth(ctx context.Context) error {
	r, err := grpc_health_v1.NewHealthClient(c.conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		return c.rpcError(err, "")
	}
	if s := r.GetStatus(); s != grpc_health_v1.HealthCheckResponse_SERVING {
		return newError(reason.Unhealthy, "the daemon answers, but says that it is %v: it is stopping, or cannot do its work; its log says why", s)
	}
	return nil
}

// Reloaded is what came of a reload.
type Reloaded struct {
	Applied     []string // keys whose new values are in force, and queues and rings that were made or changed
	NeedRestart []string // keys whose new values count from the daemon's next start on
	Refused     []string // declarations of queues and rings that could not be applied, with the reason
	Warnings    []string // what is no mistake, and yet hardly as it was meant, such as a file that is not read
}

// Reload lets the daemon read its configuration again. If there is a mistake anywhere in it nothing changes, and
// ErrConfigInvalid says which. Only admins may: root, the daemon's user, and members of its admin_group.
func (c *Client) Reload(ctx context.Context) (Reloaded, error) {
	r, err := c.system.Reload(ctx, &ipcdv1.ReloadRequest{})
	if err != nil {
		return Reloaded{}, c.rpcError(err, "")
	}
	return Reloaded{Applied: r.GetApplied(), NeedRestart: r.GetNeedRestart(), Refused: r.GetRefused(), Warnings: r.GetWarnings()}, nil
}

// Metrics returns the daemon's metrics in the text format of Prometheus, version 0.0.4. Only admins may.
func (c *Client) Metrics(ctx context.Context) ([]byte, error) {
	r, err := c.system.GetMetrics(ctx, &ipcdv1.GetMetricsRequest{})
	if err != nil {
		return nil, c.rpcError(err, "")
	}
	return r.GetText(), nil
}

// ClientConnection is a connection to the daemon.
type ClientConnection struct {
	ID            uint64 // of this door's connections; never used for another one while the daemon runs
	Door          string // "unix", "tcp" or "attach"
	Caller        Caller
	Command       string // the name of the caller's process, where the daemon can see it
	RemoteAddress string // of a TCP peer
	UserAgent     string
	ConnectedAt   time.Time
	Uses          []ClientUse // calls under way that name a queue or ring, and what is attached to rings
	Calls         int         // under way, unnamed ones included
	CallsTotal    uint64      // that have ended
}

// ClientUse is what a connection does with a queue or ring.
type ClientUse struct {
	Method      string // such as "Consume" or "Receive"; of members of rings "produce" or "consume"
	Name        string // of the queue or ring
	Since       time.Time
	Outstanding uint64 // messages delivered and not settled yet
	Behind      uint64 // what waits: ready messages of the queue, or messages of the ring that were not read yet
}

// Clients lists the connections to the daemon: an admin sees all, others those of their own user. An error ends
// the sequence.
func (c *Client) Clients(ctx context.Context) iter.Seq2[ClientConnection, error] {
	return func(yield func(ClientConnection, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		stream, err := c.system.ListClients(ctx, &ipcdv1.ListClientsRequest{})
		for err == nil {
			var r *ipcdv1.ListClientsResponse
			if r, err = stream.Recv(); err == nil && !yield(clientConnectionOf(r.GetClient()), nil) {
				return
			}
		}
		if !errors.Is(err, io.EOF) {
			yield(ClientConnection{}, c.rpcError(err, ""))
		}
	}
}

func clientConnectionOf(p *ipcdv1.ClientConnection) ClientConnection {
	v := ClientConnection{
		ID:            p.GetId(),
		Door:          p.GetDoor(),
		Caller:        callerOf(p.GetCaller()),
		Command:       p.GetCommand(),
		RemoteAddress: p.GetRemoteAddress(),
		UserAgent:     p.GetUserAgent(),
		ConnectedAt:   timeOf(p.GetConnectTime()),
		Calls:         int(p.GetCalls()),
		CallsTotal:    p.GetCallsTotal(),
	}
	for _, u := range p.GetUses() {
		v.Uses = append(v.Uses, ClientUse{
			Method: u.GetMethod(), Name: u.GetName(), Since: timeOf(u.GetSince()), Outstanding: u.GetOutstanding(), Behind: u.GetBehind(),
		})
	}
	return v
}
