package main

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/spf13/cobra"

	"github.com/ipcd/ipcd/client"
)

func newTap(a *app) *cobra.Command {
	var f tapFlags
	cmd := &cobra.Command{
		Use:   "tap QUEUE...",
		Short: "Show what arrives in queues from now on, whoever consumes it",
		Long: `Show copies of what arrives in queues from now on: sent, moved, imported or dead-lettered, whoever consumes it and
however soon. Nothing is changed, and nobody is held up: where ipcctl is too slow, messages are left out, and stderr says
how many. Messages with a delay are shown when they are stored.

It goes on until it is interrupted, or has shown as many messages as -n says. ` + patternHelp,
		Example: `  ipcctl tap /jobs
  ipcctl tap /jobs --type failed -o jsonl
  ipcctl tap 'jobs.*' --header trace=abc -n 1
  ipcctl tap /jobs -o raw | grep -i error`,
		Args: queuesArgs,
		RunE: a.long(func(ctx context.Context, cmd *cobra.Command, args []string) error {
			if err := f.format.check(cmd); err != nil {
				return err
			}
			return a.tap(ctx, args, &f)
		}),
		ValidArgsFunction: a.completeQueues(anyNumber),
	}
	flags := cmd.Flags()
	addSelector(cmd, a, &f.selector, "only the types in SEL: 7, upto:7, not:7, 1,2,3 or names")
	addList(flags, &f.headers, "header", "NAME=VALUE", "only with this header (repeat for more)", parseHeader)
	flags.VarP(&flagValue[int64]{target: &f.number, parse: limited[int64](parseCount), kind: "N"}, "number", "n", "end after so many messages (default: go on)")
	f.format.add(cmd)
	return cmd
}

type tapFlags struct {
	selector string
	headers  []header
	number   int64
	format   messageFormat
}

func (a *app) tap(ctx context.Context, args []string, f *tapFlags) error {
	c, err := a.dial()
	if err != nil {
		return err
	}
	n, err := a.named(ctx, args)
	if err != nil {
		return err
	}
	if len(n.names) > streamsMax {
		return usagef("%d queues: tap takes up to %d at once; name fewer", len(n.names), streamsMax)
	}
	selectors := map[string]client.Selector{}
	names := map[string]map[int64]string{}
	for _, name := range n.names {
		if selectors[name], err = resolveSelector(ctx, c, name, f.selector); err != nil {
			return err
		}
		if names[name], err = a.typeNames(ctx, c, name, &f.format); err != nil {
			return err
		}
	}
	said := &lockedWriter{w: a.err} // several taps tell
	f.format.namesQueues = len(n.names) > 1
	p := a.newPrinter(&f.format)
	printed := int64(0)
	taps := merged(ctx, n.names, func(ctx context.Context, name string) iter.Seq2[*client.Peeked, error] {
		return c.Queue(name).Tap(ctx, client.TapOptions{
			Selector: selectors[name], Headers: headerMap(f.headers), MaxBodyBytes: f.format.cutsBodies(),
			OnOpen: func() { fmt.Fprintf(said, "tapping %s\n", name) },
			OnSkipped: func(messages uint64) {
				fmt.Fprintf(said, "left out %s of %s: they came faster than they were shown\n", count(messages, "message"), name)
			},
		})
	})
	for m, err := range taps {
		if err != nil {
			return errors.Join(err, p.end())
		}
		if err := p.print(showPeeked(m, names[m.Queue])); err != nil {
			return err
		}
		if printed++; f.number > 0 && printed == f.number {
			break
		}
	}
	if err := ctx.Err(); err != nil && !errors.Is(err, context.Canceled) && (f.number == 0 || printed < f.number) {
		return errors.Join(err, p.end())
	}
	return p.end()
}
