package transport

import (
	"context"
	"io"
	"time"

	"github.com/ipcd/ipcd/internal/identity"
)

// System is the daemon as a whole, as the doors see it. Who may call is decided by the door.
type System interface {
	// Reload reads the configuration again and puts in force what can change while the daemon runs. With a mistake
	// in it nothing changes, and the error is CONFIG_INVALID.
	Reload(ctx context.Context) (Reloaded, error)
	// WriteMetrics writes all metrics in the text format of Prometheus, version 0.0.4.
	WriteMetrics(w io.Writer) error
	// Clients returns the connections of the doors other than gRPC.
	Clients() []Client
}

// Reloaded is what came of a reload.
type Reloaded struct {
	Applied     []string // keys whose new values are in force, and queues and rings that were made or changed
	NeedRestart []string // keys whose new values count from the next start on
	Refused     []string // declarations that could not be applied, with the reason
	Warnings    []string // what is no mistake, and yet hardly as it was meant
}

// Client is a connection to the daemon.
type Client struct {
	ID            uint64 // of this door's connections, never used again in this run
	Door          string // "unix", "tcp" or "attach"
	Who           identity.Identity
	Command       string // the name of its process, as far as the daemon can see it
	RemoteAddress string // of a TCP peer
	UserAgent     string
	Connected     time.Time
	Uses          []ClientUse
	Calls         int    // under way
	CallsTotal    uint64 // that have ended
}

// ClientUse is what a connection does with a queue or ring.
type ClientUse struct {
	Method      string // "Consume", "Receive" and so on; of members of rings "produce" or "consume"
	Name        string // of the queue or ring
	Since       time.Time
	Outstanding uint64 // messages delivered and not settled yet
	Behind      uint64 // messages of the queue that are ready, or of the ring that it has not read yet
}
