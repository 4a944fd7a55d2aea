package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/ipcd/ipcd/client"
)

// twoQueues wants a source and a destination.
func twoQueues(cmd *cobra.Command, args []string) error {
	if len(args) < 2 {
		return usagef("name two queues, source and destination, as in: %s; see %s --help", firstExample(cmd), cmd.CommandPath())
	}
	if len(args) > 2 {
		return usagef("%s takes two queues, %s is too much; see %s --help", commandName(cmd), quoteArg(args[2]), cmd.CommandPath())
	}
	return nil
}

func newMove(a *app) *cobra.Command {
	var f filterFlags
	var dryRun bool
	var limit int64
	cmd := &cobra.Command{
		Use:   "move SOURCE DESTINATION",
		Short: "Move messages to another queue",
		Long: `Move messages to another queue: all that are ready, delayed or buried, or those that the filters leave. Leased ones are
moved only with --state leased or all, and their receipts are stale then.

Each message is in exactly one of the two queues at any time, also across a crash. In its new queue it gets a new
sequence, behind what is there, and becomes ready, or stays delayed; its time of sending, TTL, headers and ids stay, and its
attempts start anew. Where the destination is full, moving stops; what was moved stays moved.`,
		Example: `  ipcctl move /jobs /jobs.later --type failed
  ipcctl move /jobs /inspect --seq 17
  ipcctl move /jobs /jobs.old --older-than 1d --dry-run
  ipcctl move /jobs.dead /jobs --header ipcd-dead-queue=/jobs --limit 10`,
		Args: twoQueues,
		RunE: a.long(func(ctx context.Context, _ *cobra.Command, args []string) error {
			return a.move(ctx, queueName(args[0]), queueName(args[1]), &f, limit, dryRun)
		}),
		ValidArgsFunction: a.completeQueues(2),
	}
	f.add(cmd, a)
	f.addStates(cmd, "only these states: ready,delayed,buried (default), leased or all")
	addFlag(cmd.Flags(), &limit, "limit", "N", "at most so many messages (default all)", positive[int64](parseCount))
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only count what would be moved")
	return cmd
}

func (a *app) move(ctx context.Context, source, destination string, f *filterFlags, limit int64, dryRun bool) error {
	c, err := a.dial()
	if err != nil {
		return err
	}
	filter, err := f.filter(ctx, c, source)
	if err != nil {
		return err
	}
	p := a.newProgress()
	defer p.clear()
	n, err := c.Queue(source).Move(ctx, destination, client.MoveOptions{
		Filter: filter, Limit: limit, DryRun: dryRun,
		Progress: func(n int64) { p.show("moved %s …", count(n, "message")) },
	})
	p.clear()
	switch {
	case dryRun && err == nil:
		return a.print(fmt.Sprintf("would move %s from %s to %s\n", count(n, "message"), source, destination))
	case err == nil || n > 0 && !dryRun:
		a.say("moved %s from %s to %s", count(n, "message"), source, destination)
	}
	return err
}
