package main

import (
	"context"
	"iter"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/ipcd/ipcd/client"
)

var ringColumns = []listColumn[client.RingInfo]{
	word("name", func(r client.RingInfo) string { return escapeLine(r.Name) }),
	word("policy", func(r client.RingInfo) string { return r.Settings.Policy.String() }),
	number("capacity", func(r client.RingInfo) int64 { return r.Settings.CapacityBytes }, bytesText),
	number("max-message", func(r client.RingInfo) int64 { return r.Settings.MaxMessageBytes }, bytesText),
	number("producers", liveLanes, strconv.Itoa),
	number("ended", func(r client.RingInfo) int { return len(r.Lanes) - liveLanes(r) }, strconv.Itoa),
	number("consumers", func(r client.RingInfo) int { return len(r.Consumers) }, strconv.Itoa),
	number("in/s", func(r client.RingInfo) float64 {
		return sumOf(r.Lanes, func(l client.RingLane) float64 { return l.PublishRate })
	}, humanRate),
	number("lag", func(r client.RingInfo) uint64 {
		return maxOf(r.Consumers, func(c client.RingConsumer) uint64 { return c.LagMessages })
	}, natural),
	number("lost", func(r client.RingInfo) uint64 {
		return sumOf(r.Consumers, func(c client.RingConsumer) uint64 { return c.LostTotal })
	}, natural),
	number("blocked", func(r client.RingInfo) int {
		return sumOf(r.Lanes, func(l client.RingLane) int {
			if l.Blocked {
				return 1
			}
			return 0
		})
	}, strconv.Itoa),
	number("memory", func(r client.RingInfo) int64 { return r.MemoryBytes }, bytesText),
	number("retain", func(r client.RingInfo) int64 { return value(r.Settings.RetainBytes) }, bytesText),
	number("stall", func(r client.RingInfo) time.Duration { return r.Settings.Stall }, humanDuration),
	word("mode", func(r client.RingInfo) string { return modeText(value(r.Settings.Mode)) }),
	word("owner", func(r client.RingInfo) string { return userName(value(r.Settings.OwnerUID)) }),
	word("group", func(r client.RingInfo) string { return groupName(value(r.Settings.GroupGID)) }),
}

func natural(n uint64) string { return strconv.FormatUint(n, 10) }

func sumOf[T any, N int | uint64 | float64](all []T, of func(T) N) (sum N) {
	for _, v := range all {
		sum += of(v)
	}
	return sum
}

func maxOf[T any](all []T, of func(T) uint64) (most uint64) {
	for _, v := range all {
		most = max(most, of(v))
	}
	return most
}

func newRingLs(a *app) *cobra.Command {
	l := &listing[client.RingInfo]{
		things:  "rings",
		columns: ringColumns,
		table:   []string{"name", "policy", "capacity", "producers", "consumers", "in/s", "lag", "lost", "memory", "mode", "owner"},
		name:    func(r client.RingInfo) string { return r.Name },
		view:    viewRing,
		each: func(ctx context.Context, c *client.Client, glob string) iter.Seq2[client.RingInfo, error] {
			return c.Rings(ctx, glob)
		},
	}
	cmd := &cobra.Command{
		Use:     "ls [GLOB]",
		Aliases: []string{"list"},
		Short:   "List rings: policy, producers, consumers, rates, lag, memory",
		Long: `List the rings that you may look at, and whose names match GLOB if one is given (quote it in a shell).

in/s is messages published a second, over the last seconds; lag is how many messages the slowest consumer has not
read yet; lost, how many the consumers that are there now have missed; ended, how many lanes are kept although
their producers have left.`,
		Example: `  ipcctl ring ls
  ipcctl ring ls 'ticks*' --sort lag --reverse
  ipcctl ring ls -o wide --watch
  ipcctl ring ls -o json | jq '.rings[] | select(.consumers == []).name'`,
		Args:              globArgs,
		RunE:              l.run(a),
		ValidArgsFunction: a.completeRings(1),
	}
	l.add(cmd)
	return cmd
}
