package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/ipcd/ipcd/client"
)

func newPeek(a *app) *cobra.Command {
	var (
		f      filterFlags
		format messageFormat
		limit  int64 = 20
		follow bool
	)
	cmd := &cobra.Command{
		Use:   "peek QUEUE",
		Short: "Look at messages without changing anything",
		Long: `Look at messages: no lease, no attempt, no change of order. Ready ones come in the order in which they
would be received, delayed ones by due time, leased ones by deadline, buried ones by sequence.

The text output shows control bytes as \x1b and the like, and the beginning of long bodies.`,
		Example: `  ipcctl peek /jobs
  ipcctl peek /jobs --state all --type failed -n 5
  ipcctl peek /jobs --seq 42 -o raw
  ipcctl peek /jobs --older-than 1h --header trace=abc -o jsonl
  ipcctl peek /jobs --follow`,
		Args: queueArgs(1, 1),
		RunE: a.long(func(ctx context.Context, cmd *cobra.Command, args []string) error {
			if err := format.check(cmd); err != nil {
				return err
			}
			if follow && !cmd.Flags().Changed("number") {
				limit = 0
			}
			return a.peek(ctx, queueName(args[0]), &f, &format, limit, follow)
		}),
		ValidArgsFunction: a.completeQueues(1),
	}
	f.add(cmd, a)
	f.addStates(cmd, "only these states: ready (default), delayed, leased, buried or all")
	flags := cmd.Flags()
	flags.VarP(&flagValue[int64]{target: &limit, parse: limited[int64](parseCount), kind: "N"}, "number", "n",
		"at most so many messages, 0 for all (default 20, with --follow all)")
	flags.BoolVarP(&follow, "follow", "f", false, "go on with messages as they arrive")
	format.add(cmd)
	return cmd
}

func (a *app) peek(ctx context.Context, name string, f *filterFlags, format *messageFormat, limit int64, follow bool) error {
	c, err := a.dial()
	if err != nil {
		return err
	}
	filter, err := f.filter(ctx, c, name)
	if err != nil {
		return err
	}
	names, err := a.typeNames(ctx, c, name, format)
	if err != nil {
		return err
	}
	p := a.newPrinter(format)
	printed := 0
	options := client.PeekOptions{Filter: filter, Limit: limit, Follow: follow, MaxBodyBytes: format.cutsBodies()}
	for m, err := range c.Queue(name).Peek(ctx, options) {
		if err != nil {
			if follow && ctx.Err() == context.Canceled {
				break
			}
			return err
		}
		if err := p.print(showPeeked(m, names)); err != nil {
			return err
		}
		printed++
	}
	if err := ctx.Err(); err != nil && !(follow && errors.Is(err, context.Canceled)) {
		return err
	}
	if printed == 0 && !follow && a.eTTY {
		a.say("no such messages in %s", name)
	}
	return p.end()
}

// typeNames asks for the names of a queue's types, where the output shows them. Who may not look at the
// queue sees numbers.
func (a *app) typeNames(ctx context.Context, c *client.Client, name string, format *messageFormat) (map[int64]string, error) {
	if !format.namesTypes() {
		return nil, nil
	}
	info, err := c.GetQueue(ctx, name)
	if errors.Is(err, client.ErrAccessDenied) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return typeNamesByNumber(info.Settings.TypeNames), nil
}
