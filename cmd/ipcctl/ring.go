package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ipcd/ipcd/client"
)

// newRing makes the family of commands about rings.
func newRing(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ring",
		Short: "Rings in shared memory: create, look, publish, subscribe",
		Long: `A ring is a named broadcast log in shared memory: every consumer sees every message. Each producer writes a
lane of its own; messages are in order within a lane, and sequences are those of a lane. Programs on the
daemon's host attach to the memory itself; what ipcctl does goes through the daemon, and works from afar.

Rings have names of their own: a queue and a ring may both be /ticks.`,
		Example: `  ipcctl ring create /ticks --capacity 32MiB --policy overwrite --mode 0660
  ipcctl ring pub /ticks --type 7 '101.25'
  ipcctl ring sub /ticks --from oldest
  ipcctl ring stat /ticks --watch`,
		Args: func(cmd *cobra.Command, args []string) error {
			names := make([]string, 0, len(cmd.Commands()))
			for _, c := range cmd.Commands() {
				names = append(names, c.Name())
			}
			if len(args) == 0 {
				return usagef("say what to do: ipcctl ring %s; see ipcctl ring --help", strings.Join(names, "|"))
			}
			return usagef("unknown command %s%s; see ipcctl ring --help", quoteArg("ring "+args[0]), didYouMean(args[0], names))
		},
		RunE:                  func(*cobra.Command, []string) error { return nil }, // Args refuses whatever is no command
		DisableFlagsInUseLine: true,
	}
	cmd.AddCommand(newRingLs(a), newRingStat(a), newRingCreate(a), newRingUpdate(a), newChown(a, a.ownedRings()), newChmod(a, a.ownedRings()), newRingRm(a), newRingPub(a), newRingSub(a))
	return cmd
}

// ringArgs wants so many names of rings.
func ringArgs(atLeast, atMost int) cobra.PositionalArgs { return nameArgs("ring", atLeast, atMost) }

// completeRings completes up to so many names of rings.
func (a *app) completeRings(atMost int) completer {
	return a.completeNames(atMost, func(ctx context.Context, c *client.Client, each func(name string)) {
		for r, err := range c.Rings(ctx, "") {
			if err != nil {
				return
			}
			each(r.Name)
		}
	})
}

// noSuchRing takes the advice to create a ring out of err, for those who only look at it or delete it.
func noSuchRing(err error) error {
	var e *client.Error
	if !errors.Is(err, client.ErrRingNotFound) || !errors.As(err, &e) {
		return err
	}
	plain := *e
	plain.Message = "there is no such ring"
	return &plain
}

// liveLanes counts the lanes whose producers are there.
func liveLanes(r client.RingInfo) int {
	ended := 0
	for _, l := range r.Lanes {
		if l.Ended {
			ended++
		}
	}
	return len(r.Lanes) - ended
}

// members says who is there: "2 producers and 1 consumer".
func members(r client.RingInfo) string {
	return count(liveLanes(r), "producer") + " and " + count(len(r.Consumers), "consumer")
}

// processText names a member's process.
func processText(pid int, daemon bool) string {
	if daemon {
		return "ipcd"
	}
	return fmt.Sprint(pid)
}

// laneState says in a word how a lane's producer fares.
func laneState(l client.RingLane) string {
	switch {
	case l.Unreadable:
		return "unreadable"
	case l.Ended:
		return "ended"
	case l.Blocked:
		return "blocked"
	}
	return "live"
}

// consumerState says in a word how a consumer fares.
func consumerState(c client.RingConsumer) string {
	switch {
	case c.Unreadable:
		return "unreadable"
	case slices.ContainsFunc(c.Cursors, func(at client.RingCursor) bool { return at.Evicted }):
		return "evicted"
	case c.Parked:
		return "parked"
	}
	return "awake"
}
