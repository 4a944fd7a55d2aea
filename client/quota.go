package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"slices"

	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// Resources that quotas count.
const (
	ResourceQueues      = "queues"       // queues owned
	ResourceRings       = "rings"        // rings owned
	ResourceQueuedBytes = "queued_bytes" // bytes of bodies, headers and ids in the queues owned, whoever sent them
	ResourceConnections = "connections"  // to any of the daemon's sockets
	ResourceStreams     = "streams"      // calls under way
	ResourceReceivers   = "receivers"    // receives that wait, and streams of deliveries
)

// Unlimited is the limit of what is not limited.
const Unlimited int64 = math.MaxInt64

// Principal is whom something is charged to. User, Certificate and Anonymous make one; it can be compared.
type Principal struct {
	Kind string // "unix", "certificate" or "anonymous"
	UID  uint32 // of a user
	Name string // of a certificate: its SPIFFE ID, else its subject
}

// User is a user of the daemon's host, by uid.
func User(uid uint32) Principal { return Principal{Kind: "unix", UID: uid} }

// Certificate is who holds a certificate that acts as no user, by its SPIFFE ID, else its subject.
func Certificate(name string) Principal { return Principal{Kind: "certificate", Name: name} }

// Anonymous is all callers together of whom nothing is known: those of plaintext TCP.
func Anonymous() Principal { return Principal{Kind: "anonymous"} }

// String describes the principal: uid 1000, certificate "spiffe://example.org/a", anonymous.
func (p Principal) String() string {
	switch p.Kind {
	case "unix":
		return fmt.Sprintf("uid %d", p.UID)
	case "certificate":
		return fmt.Sprintf("certificate %q", p.Name)
	}
	return p.Kind
}

func (p Principal) proto() (*ipcdv1.Principal, *Error) {
	switch p.Kind {
	case "unix":
		return &ipcdv1.Principal{Kind: &ipcdv1.Principal_Uid{Uid: p.UID}}, nil
	case "certificate":
		return &ipcdv1.Principal{Kind: &ipcdv1.Principal_Certificate{Certificate: p.Name}}, nil
	case "anonymous":
		return &ipcdv1.Principal{Kind: &ipcdv1.Principal_Anonymous{Anonymous: true}}, nil
	}
	return nil, newError(reason.InvalidArgument, "principal of kind %q: make one with User, Certificate or Anonymous", p.Kind)
}

func principalOf(p *ipcdv1.Principal) Principal {
	switch k := p.GetKind().(type) {
	case *ipcdv1.Principal_Uid:
		return User(k.Uid)
	case *ipcdv1.Principal_Certificate:
		return Certificate(k.Certificate)
	}
	return Anonymous()
}

// Quota is what a principal uses of one resource, and may use.
type Quota struct {
	Resource string // one of the Resource constants, or one that this client does not know yet
	Used     int64
	Limit    int64  // or Unlimited
	Source   string // of the limit: "set" (by SetQuota), "config" (by name), "default", or "exempt" (root and the daemon's user)
}

// Quotas is what a principal uses and may use.
type Quotas struct {
	Who    Principal
	Quotas []Quota
}

// QuotaChange says what SetQuota changes. Resources that it does not name stay as they are.
type QuotaChange struct {
	Limits map[string]int64 // by resource; may be Unlimited
	Reset  []string         // resources for which the configuration counts again
}

// Quotas lists what everybody uses and may use who uses something or has a limit of its own; who is no admin sees
// only itself. An error ends the sequence.
func (c *Client) Quotas(ctx context.Context) iter.Seq2[Quotas, error] {
	return func(yield func(Quotas, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		stream, err := c.system.ListQuotas(ctx, &ipcdv1.ListQuotasRequest{})
		for err == nil {
			var r *ipcdv1.ListQuotasResponse
			if r, err = stream.Recv(); err == nil && !yield(Quotas{Who: principalOf(r.GetPrincipal()), Quotas: quotasOf(r.GetQuotas())}, nil) {
				return
			}
		}
		if !errors.Is(err, io.EOF) {
			yield(Quotas{}, c.rpcError(err, ""))
		}
	}
}

// SetQuota sets limits of a principal. They win over those of the configuration and outlive the daemon. What is used
// beyond a limit stays, and nothing can be added to it. Only admins may.
func (c *Client) SetQuota(ctx context.Context, who Principal, change QuotaChange) (Quotas, error) {
	to, e := who.proto()
	if e != nil {
		return Quotas{}, e
	}
	request := &ipcdv1.SetQuotaRequest{Principal: to, Limits: map[string]int64{}, Reset_: change.Reset}
	for resource, limit := range change.Limits {
		if limit == Unlimited {
			request.Unlimited = append(request.Unlimited, resource)
		} else {
			request.Limits[resource] = limit
		}
	}
	slices.Sort(request.Unlimited)
	r, err := c.system.SetQuota(ctx, request)
	if err != nil {
		return Quotas{}, c.rpcError(err, "")
	}
	return Quotas{Who: who, Quotas: quotasOf(r.GetQuotas())}, nil
}

func quotasOf(from []*ipcdv1.Quota) []Quota {
	quotas := make([]Quota, 0, len(from))
	for _, p := range from {
		q := Quota{Resource: p.GetResource(), Used: p.GetUsed(), Limit: Unlimited, Source: p.GetSource()}
		if p.Limit != nil {
			q.Limit = p.GetLimit()
		}
		quotas = append(quotas, q)
	}
	return quotas
}
