package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/ipcd/ipcd/client"
)

type pubOptions struct {
	typ    int64
	lines  bool
	output string
}

func newRingPub(a *app) *cobra.Command {
	o := pubOptions{typ: 1}
	cmd := &cobra.Command{
		Use:     "pub RING PAYLOAD|-",
		Aliases: []string{"publish"},
		Short:   "Publish messages",
		Long: `Publish a message, or with --lines one for each line of stdin, and print its sequence in the daemon's lane.
With - for the payload the message is read from stdin as it is.

--lines publishes what has come whenever the input pauses, and many lines at once when it does not. It stops at
the first line that is refused, and says how many messages were published. In a lossless ring it waits for the
slowest consumer; --timeout bounds that, which exits 6 and says of which messages it is not known whether they were
published. It goes on publishing when nobody reads its output any more.

What is published through the daemon is in the daemon's own lane, and is gone when that stops or restarts. The lanes
of programs that produce in shared memory stay.`,
		Example: `  ipcctl ring pub /ticks 'hello'
  ipcctl ring pub /ticks --type 7 '{"px":101.25}'
  ipcctl ring pub /frames - < frame.bin
  vmstat 1 | ipcctl ring pub /load --lines`,
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) == 0:
				return usagef("name a ring, as in: ipcctl ring pub /ticks 'hello'; see ipcctl ring pub --help")
			case o.lines && len(args) == 2 && args[1] != "-", o.lines && len(args) > 2:
				return usagef("--lines reads the messages from stdin, %s is too much", quoteArg(args[1]))
			case o.lines:
				return nil
			case len(args) == 1:
				return usagef("give a payload, or - to read it from stdin, or --lines for one message a line")
			case len(args) > 2:
				return usagef("one payload at a time, %s is too much: quote a payload with spaces, or use --lines", quoteArg(args[2]))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.lines {
				return a.long(func(ctx context.Context, _ *cobra.Command, args []string) error {
					return a.publishLines(ctx, queueName(args[0]), &o)
				})(cmd, args)
			}
			return a.bounded(func(ctx context.Context, _ *cobra.Command, args []string) error {
				return a.publish(ctx, queueName(args[0]), args[1], &o)
			})(cmd, args)
		},
		ValidArgsFunction: a.completeRings(1),
	}
	f := cmd.Flags()
	f.VarP(&flagValue[int64]{target: &o.typ, parse: parseRingType, kind: "N"}, "type", "t", "its type, from 1 (default) on")
	f.BoolVar(&o.lines, "lines", false, "publish each line of stdin as a message")
	addOutput(cmd, &o.output, "text", "json", "jsonl")
	return cmd
}

// publish publishes one message.
func (a *app) publish(ctx context.Context, name, arg string, o *pubOptions) error {
	c, err := a.dial()
	if err != nil {
		return err
	}
	payload, err := a.payload(ctx, arg)
	if err != nil {
		return err
	}
	publisher, err := c.Ring(name).Publisher(ctx)
	if err != nil {
		return err
	}
	defer publisher.Close()
	published, err := publisher.Publish(ctx, client.RingMessage{Type: o.typ, Payload: payload})
	if err != nil {
		return ofOne(err)
	}
	if o.output == "text" {
		return a.print(natural(published.FirstSequence) + "\n")
	}
	p := newPubPrinter(a, name, o.output)
	if err := p.print(published); err != nil {
		return err
	}
	return p.end()
}

// publishedView is a message that was published, as json and jsonl show it.
type publishedView struct {
	Ring     string `json:"ring"`
	LaneID   uint64 `json:"lane_id"`
	Sequence uint64 `json:"sequence"`
}

// pubPrinter writes what was published as json or jsonl; as text it writes nothing. A reader that goes away is no
// reason to stop publishing: from then on it writes nothing.
type pubPrinter struct {
	p      *printer
	ring   string
	unread bool
}

func newPubPrinter(a *app, ring, output string) *pubPrinter {
	return &pubPrinter{p: a.newPrinter(&messageFormat{output: output}), ring: ring}
}

func (p *pubPrinter) print(published client.RingPublished) error {
	if p.p.format.output == "text" || p.unread {
		return nil
	}
	for i := range published.Count {
		err := p.p.record(publishedView{p.ring, published.LaneID, published.FirstSequence + uint64(i)})
		if p.unread = isBrokenPipe(err); p.unread {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *pubPrinter) end() error {
	if p.unread {
		return nil
	}
	return p.p.end()
}
