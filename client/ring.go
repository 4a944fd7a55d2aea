package client

import (
	"context"
	"errors"
	"io"
	"iter"

	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// Ring is one ring of a daemon, as it is reached through the daemon, also from afar. Making one does no I/O
// and says nothing about whether it exists.
type Ring struct {
	c    *Client
	name string
}

// Ring returns the ring of that name, with or without its leading slash.
func (c *Client) Ring(name string) *Ring { return &Ring{c: c, name: queueName(name)} }

// Name returns the ring's name with its slash.
func (r *Ring) Name() string { return r.name }

// Info returns the ring as it is now. Looking disturbs neither producers nor consumers.
func (r *Ring) Info(ctx context.Context) (RingInfo, error) { return r.c.GetRing(ctx, r.name) }

// CreateRing makes a ring. Where one with the same settings exists it succeeds; where one with others exists
// it fails with ErrRingExists, which names the difference, as it does in any case with Exclusive.
func (c *Client) CreateRing(ctx context.Context, name string, s RingSettings, opts ...CreateOption) (RingInfo, error) {
	var o createOptions
	for _, opt := range opts {
		opt(&o)
	}
	name = queueName(name)
	r, err := c.rings.CreateRing(ctx, &ipcdv1.CreateRingRequest{Name: name, Settings: s.proto(), Exclusive: o.exclusive})
	if err != nil {
		return RingInfo{}, c.rpcError(err, name)
	}
	if o.created != nil {
		*o.created = r.GetCreated()
	}
	return ringInfoOf(r.GetRing()), nil
}

// GetRing returns a ring as it is now.
func (c *Client) GetRing(ctx context.Context, name string) (RingInfo, error) {
	name = queueName(name)
	r, err := c.rings.GetRing(ctx, &ipcdv1.GetRingRequest{Name: name})
	if err != nil {
		return RingInfo{}, c.rpcError(err, name)
	}
	return ringInfoOf(r.GetRing()), nil
}

// UpdateRing changes settings: those that fields names, by their names in the protobuf schema, of which
// "mode", "owner_uid", "group_gid", "retain_bytes" and "stall" can be changed. A field that is named and
// zero in s returns to its default.
func (c *Client) UpdateRing(ctx context.Context, name string, s RingSettings, fields ...string) (RingInfo, error) {
	name = queueName(name)
	if len(fields) == 0 {
		return RingInfo{}, newError(reason.InvalidArgument, "no fields to update: name at least one, such as \"mode\"").on(name)
	}
	r, err := c.rings.UpdateRing(ctx, &ipcdv1.UpdateRingRequest{Name: name, Settings: s.proto(), UpdateMask: &fieldmaskpb.FieldMask{Paths: fields}})
	if err != nil {
		return RingInfo{}, c.rpcError(err, name)
	}
	return ringInfoOf(r.GetRing()), nil
}

// DeleteRing removes a ring. Its publishers and subscribers end with ErrRingDeleted.
func (c *Client) DeleteRing(ctx context.Context, name string) error {
	name = queueName(name)
	if _, err := c.rings.DeleteRing(ctx, &ipcdv1.DeleteRingRequest{Name: name}); err != nil {
		return c.rpcError(err, name)
	}
	return nil
}

// Rings lists, by name, the rings that the caller may look at and whose name, without its slash, matches
// glob: a pattern as of path.Match, "" for all. An error ends the sequence.
func (c *Client) Rings(ctx context.Context, glob string) iter.Seq2[RingInfo, error] {
	return func(yield func(RingInfo, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		stream, err := c.rings.ListRings(ctx, &ipcdv1.ListRingsRequest{Glob: glob})
		for err == nil {
			var r *ipcdv1.ListRingsResponse
			if r, err = stream.Recv(); err == nil && !yield(ringInfoOf(r.GetRing()), nil) {
				return
			}
		}
		if !errors.Is(err, io.EOF) {
			yield(RingInfo{}, c.rpcError(err, ""))
		}
	}
}
