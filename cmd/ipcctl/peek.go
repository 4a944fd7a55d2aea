package main

import (
	"context"
	"errors"
	"iter"
	"strings"

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
		Use:   "peek QUEUE...",
		Short: "Look at messages without changing anything",
		Long: `Look at messages: no lease, no attempt, no change of order. Ready ones come in the order in which they
would be received, delayed ones by due time, leased ones by deadline, buried ones by sequence.

The text output shows control bytes as \x1b and the like, and the beginning of long bodies. ` + patternHelp,
		Example: `  ipcctl peek /jobs
  ipcctl peek /jobs --state all --type failed -n 5
  ipcctl peek /jobs --seq 42 -o raw
  ipcctl peek /jobs --older-than 1h --header trace=abc -o jsonl
  ipcctl peek /jobs --follow
  ipcctl peek 'jobs.*' --state buried -n 1`,
		Args: queuesArgs,
		RunE: a.long(func(ctx context.Context, cmd *cobra.Command, args []string) error {
			if err := format.check(cmd); err != nil {
				return err
			}
			if follow && !cmd.Flags().Changed("number") {
				limit = 0
			}
			return a.peek(ctx, args, &f, &format, limit, follow)
		}),
		ValidArgsFunction: a.completeQueues(anyNumber),
	}
	f.add(cmd, a)
	f.addStates(cmd, "only these states: ready (default), delayed, leased, buried or all")
	flags := cmd.Flags()
	flags.VarP(&flagValue[int64]{target: &limit, parse: limited[int64](parseCount), kind: "N"}, "number", "n",
		"at most so many messages of each queue, 0 for all (default 20, with --follow all)")
	flags.BoolVarP(&follow, "follow", "f", false, "go on with messages as they arrive")
	format.add(cmd)
	return cmd
}

func (a *app) peek(ctx context.Context, args []string, f *filterFlags, format *messageFormat, limit int64, follow bool) error {
	c, err := a.dial()
	if err != nil {
		return err
	}
	n, err := a.named(ctx, args)
	if err != nil {
		return err
	}
	format.namesQueues = len(n.names) > 1
	p := &peeker{a: a, client: c, printer: a.newPrinter(format), names: map[string]map[int64]string{},
		filters: map[string]client.Filter{}, options: client.PeekOptions{Limit: limit, Follow: follow, MaxBodyBytes: format.cutsBodies()}}
	if follow {
		err = p.follow(ctx, n.names, f)
	} else {
		err = a.each(ctx, n.names, func(name string) error {
			if err := p.prepare(ctx, name, f); err != nil {
				return err
			}
			return p.show(ctx, p.messages(ctx, name))
		})
	}
	var broken *writeError
	if errors.As(err, &broken) {
		return err
	}
	if p.printed == 0 && !follow && err == nil && a.eTTY {
		a.say("no such messages in %s", strings.Join(n.names, ", "))
	}
	if endErr := p.printer.end(); err == nil {
		err = endErr
	}
	return err
}

// peeker is one peek at work.
type peeker struct {
	a       *app
	client  *client.Client
	printer *printer
	names   map[string]map[int64]string // of types, by queue
	filters map[string]client.Filter    // by queue
	options client.PeekOptions
	printed int
}

// prepare finds out what the filters mean for a queue.
func (p *peeker) prepare(ctx context.Context, name string, f *filterFlags) (err error) {
	if p.filters[name], err = f.filter(ctx, p.client, name); err != nil {
		return err
	}
	p.names[name], err = p.a.typeNames(ctx, p.client, name, p.printer.format)
	return err
}

func (p *peeker) messages(ctx context.Context, name string) iter.Seq2[*client.Peeked, error] {
	options := p.options
	options.Filter = p.filters[name]
	return p.client.Queue(name).Peek(ctx, options)
}

// follow shows what is in the queues and what comes, until it is interrupted.
func (p *peeker) follow(ctx context.Context, names []string, f *filterFlags) error {
	if len(names) > streamsMax {
		return usagef("%d queues: --follow takes up to %d at once; name fewer", len(names), streamsMax)
	}
	for _, name := range names {
		if err := p.prepare(ctx, name, f); err != nil {
			return err
		}
	}
	err := p.show(ctx, merged(ctx, names, p.messages))
	if errors.Is(ctx.Err(), context.Canceled) {
		return nil
	}
	return err
}

func (p *peeker) show(ctx context.Context, messages iter.Seq2[*client.Peeked, error]) error {
	for m, err := range messages {
		if err != nil {
			return err
		}
		if err := p.printer.print(showPeeked(m, p.names[m.Queue])); err != nil {
			return err
		}
		p.printed++
	}
	return ctx.Err()
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
	if info.SchemaVersion > 0 {
		if err := a.loadSchema(ctx, c, name); err != nil {
			return nil, err
		}
	}
	return typeNamesByNumber(info.Settings.TypeNames), nil
}
