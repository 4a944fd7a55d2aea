// Package quota counts what each identity holds of the daemon, and bounds it. Counting is exact: nobody ever has one
// more than the quota, by however many connections.
package quota

import (
	"math"
	"slices"

	"github.com/ipcd/ipcd/internal/limits"
)

// Resource is a kind of thing that is counted.
type Resource uint8

// The resources.
const (
	Queues      Resource = iota // queues owned
	Rings                       // rings owned
	QueuedBytes                 // bytes of bodies, headers and ids in the queues owned, whoever sent them
	Connections                 // connections to the socket, to TCP and to the attach socket
	Streams                     // calls under way: a stream is one, and so is a unary call
	Receivers                   // receives that wait, and streams of deliveries
	resources
)

var names = [resources]string{"queues", "rings", "queued_bytes", "connections", "streams", "receivers"}

// String returns the resource's name as in the configuration and the API.
func (r Resource) String() string { return names[r] }

// Resources returns all resources, in order.
func Resources() []Resource {
	return []Resource{Queues, Rings, QueuedBytes, Connections, Streams, Receivers}
}

// Named returns the resource of that name.
func Named(name string) (r Resource, ok bool) {
	i := slices.Index(names[:], name)
	return Resource(max(i, 0)), i >= 0
}

// Unlimited is the limit of what is not limited.
const Unlimited = math.MaxInt64

// Limits says how much of some resources there may be. What is not in it is limited by something more general.
type Limits map[Resource]int64

// Defaults are the limits of who has none of its own.
func Defaults() Limits {
	return Limits{
		Queues: limits.QuotaQueues, Rings: limits.QuotaRings, QueuedBytes: limits.QuotaQueuedBytes,
		Connections: limits.QuotaConnections, Streams: limits.QuotaStreams, Receivers: limits.QuotaReceivers,
	}
}
