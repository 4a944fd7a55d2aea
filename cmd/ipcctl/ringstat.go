package main

import (
	"bytes"
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/ipcd/ipcd/client"
)

func newRingStat(a *app) *cobra.Command {
	var output string
	var watch bool
	var interval time.Duration
	cmd := &cobra.Command{
		Use:   "stat RING...",
		Short: "Show all about rings: lanes and their producers, consumers and how far they are",
		Long: `Show all about rings. Looking disturbs neither producers nor consumers.

Of a lane, position and oldest are bytes since it began, messages is the sequence of its last one, lag what the
slowest consumer has not read yet; wakes are the times that its producer woke sleeping consumers, spared those when
all that slept had been woken already and were not up yet. Blocks and evicted tell of lossless consumers that held it
up.

Of a consumer, lag is what it has not read yet, in messages of all lanes; found counts when it found messages
without having been woken for them, which is 0 unless a member misbehaves. User is on whose behalf it is there. -o wide
also shows where each consumer stands in each lane.`,
		Example: `  ipcctl ring stat /ticks
  ipcctl ring stat /ticks --watch --interval 500ms
  ipcctl ring stat /ticks -o json | jq '.rings[0].consumers[] | {pid, lag_messages, lost_total}'`,
		Args: ringArgs(1, anyNumber),
		RunE: func(cmd *cobra.Command, args []string) error {
			if watch {
				return a.long(func(ctx context.Context, _ *cobra.Command, _ []string) error {
					return a.watch(ctx, interval, func() (string, error) { return a.statRings(ctx, args, output) })
				})(cmd, args)
			}
			return a.short(func(ctx context.Context, _ *cobra.Command, _ []string) error {
				text, failed := a.statRings(ctx, args, output)
				if err := a.print(text); err != nil {
					return err
				}
				return failed
			})(cmd, args)
		},
		ValidArgsFunction: a.completeRings(anyNumber),
	}
	addOutput(cmd, &output, "text", "wide", "json", "yaml")
	addWatch(cmd, &watch, &interval)
	return cmd
}

// statRings returns what is to be shown of rings, also where some of them failed.
func (a *app) statRings(ctx context.Context, names []string, output string) (string, error) {
	c, err := a.dial()
	if err != nil {
		return "", err
	}
	var rings []client.RingInfo
	failed := a.each(ctx, names, func(name string) error {
		info, err := c.GetRing(ctx, queueName(name))
		if err == nil {
			rings = append(rings, info)
		}
		return noSuchRing(err)
	})
	if len(rings) == 0 {
		return "", failed
	}
	var b bytes.Buffer
	switch output {
	case "json", "yaml":
		err = writeList(&b, output, "rings", rings, viewRing)
	default:
		for i, r := range rings {
			if i > 0 {
				b.WriteString("\n")
			}
			a.writeRingStat(&b, r, output == "wide")
		}
	}
	if err != nil {
		return "", err
	}
	return b.String(), failed
}

var laneColumns = []listColumn[client.RingLane]{
	number("lane", func(l client.RingLane) uint64 { return l.ID }, natural),
	word("process", func(l client.RingLane) string { return processText(l.PID, l.Daemon) }),
	word("user", func(l client.RingLane) string { return userName(l.UID) }),
	word("state", laneState),
	word("for", func(l client.RingLane) string { return joinedText(l.JoinedAt) }),
	number("messages", func(l client.RingLane) uint64 { return l.Sequence }, natural),
	number("in/s", func(l client.RingLane) float64 { return l.PublishRate }, humanRate),
	number("position", func(l client.RingLane) uint64 { return l.Position }, natural),
	number("oldest", func(l client.RingLane) uint64 { return l.OldestPosition }, natural),
	number("lag", func(l client.RingLane) uint64 { return l.SlowestLagMessages }, natural),
	number("wakes", func(l client.RingLane) uint64 { return l.WakesTotal }, natural),
	number("spared", func(l client.RingLane) uint64 { return l.WakesElidedTotal }, natural),
	number("blocks", func(l client.RingLane) uint64 { return l.BlocksTotal }, natural),
	number("blocked-for", func(l client.RingLane) time.Duration { return l.BlockedTimeTotal }, humanDuration),
	number("evicted", func(l client.RingLane) uint64 { return l.EvictionsTotal }, natural),
}

var consumerColumns = []listColumn[client.RingConsumer]{
	number("consumer", func(c client.RingConsumer) uint64 { return c.ID }, natural),
	word("process", func(c client.RingConsumer) string { return processText(c.PID, c.Daemon) }),
	word("user", func(c client.RingConsumer) string {
		if c.Anonymous {
			return "-"
		}
		return userName(c.UID)
	}),
	word("state", consumerState),
	word("for", func(c client.RingConsumer) string { return joinedText(c.JoinedAt) }),
	word("policy", func(c client.RingConsumer) string {
		if c.Lossless {
			return "lossless"
		}
		return "overwrite"
	}),
	number("received", func(c client.RingConsumer) uint64 { return c.ReceivedTotal }, natural),
	number("out/s", func(c client.RingConsumer) float64 { return c.ReceiveRate }, humanRate),
	number("lag", func(c client.RingConsumer) uint64 { return c.LagMessages }, natural),
	number("lost", func(c client.RingConsumer) uint64 { return c.LostTotal }, natural),
	number("parks", func(c client.RingConsumer) uint64 { return c.ParksTotal }, natural),
	number("found", func(c client.RingConsumer) uint64 { return c.BackstopsTotal }, natural),
}

// place is where a consumer stands in a lane.
type place struct {
	consumer uint64
	client.RingCursor
}

var placeColumns = []listColumn[place]{
	number("consumer", func(p place) uint64 { return p.consumer }, natural),
	number("lane", func(p place) uint64 { return p.LaneID }, natural),
	number("position", func(p place) uint64 { return p.Position }, natural),
	number("sequence", func(p place) uint64 { return p.Sequence }, natural),
	number("lag", func(p place) uint64 { return p.LagMessages }, natural),
	number("lag-bytes", func(p place) uint64 { return p.LagBytes }, humanBytes),
	number("lost", func(p place) uint64 { return p.LostTotal }, natural),
	word("evicted", func(p place) string {
		if p.Evicted {
			return "yes"
		}
		return "no"
	}),
}

// writeRingStat writes all about a ring, for people.
func (a *app) writeRingStat(b *bytes.Buffer, r client.RingInfo, wide bool) {
	t := report{a, b}
	s := r.Settings
	t.section(escapeLine(r.Name))
	t.line("id", "%d", r.ID)
	t.line("created", "%s (%s ago)", r.CreatedAt.Local().Format(time.DateTime), joinedText(r.CreatedAt))
	t.line("policy", "%s", s.Policy)
	t.line("capacity", "%s a lane, messages of up to %d bytes", bytesText(s.CapacityBytes), s.MaxMessageBytes)
	t.line("retains", "%s of lanes whose producers have left", bytesText(value(s.RetainBytes)))
	t.line("stall", "%v", s.Stall)
	t.line("memory", "%s", bytesText(r.MemoryBytes))
	t.line("owner", "%s:%s %s", userName(value(s.OwnerUID)), groupName(value(s.GroupGID)), modeText(value(s.Mode)))

	width := 0
	if !wide {
		width, _ = a.size()
	}
	section(t, "Lanes", laneColumns, r.Lanes, width)
	section(t, "Consumers", consumerColumns, r.Consumers, width)
	if !wide {
		return
	}
	var places []place
	for _, c := range r.Consumers {
		for _, at := range c.Cursors {
			places = append(places, place{c.ID, at})
		}
	}
	section(t, "Places", placeColumns, places, 0)
}

// section writes a table under a title.
func section[T any](t report, title string, columns []listColumn[T], all []T, width int) {
	if len(all) == 0 {
		t.section(title + ": none")
		return
	}
	t.section(title)
	writeColumns(t.b, t.a, columns, all, true, width)
}
