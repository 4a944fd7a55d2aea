package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/ipcd/ipcd/client"
	"github.com/ipcd/ipcd/internal/limits"
)

type requestOptions struct {
	message client.Message
	typ     string
	headers []header
	format  messageFormat
}

func newRequest(a *app) *cobra.Command {
	var o requestOptions
	cmd := &cobra.Command{
		Use:   "request QUEUE PAYLOAD|-",
		Short: "Send a request, and print the reply",
		Long: `Send a message that asks for a reply, wait for the reply, and print it. With - for the payload the body is read from
stdin as it is.

The reply comes to a temporary queue, which ends with the command; the request's TTL is the time that is left, so that nobody
works on it in vain. Without a reply in time (--timeout, 30s) it exits 6. Who answers reads reply_to and correlation_id:
ipcctl work --reply, or Respond of the client libraries.`,
		Example: `  ipcctl request /sums '2+3' -o raw
  ipcctl request /sums - --timeout 5s < long-sum
  ipcctl request /orders --type created --header trace=abc '{"id":1}' -o json`,
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) == 0:
				return usagef("name a queue, as in: ipcctl request /sums '2+3'; see ipcctl request --help")
			case len(args) == 1:
				return usagef("give a payload, or - to read it from stdin")
			case len(args) > 2:
				return usagef("one payload at a time, %s is too much: quote a payload with spaces", quoteArg(args[2]))
			}
			return nil
		},
		RunE: a.bounded(func(ctx context.Context, cmd *cobra.Command, args []string) error {
			if err := o.format.check(cmd); err != nil {
				return err
			}
			return a.request(ctx, cmd, args, &o)
		}),
		ValidArgsFunction: a.completeQueues(1),
	}
	f, m := cmd.Flags(), &o.message
	addText(f, &o.typ, "type", "t", "TYPE", "the request's TYPE: a number or the queue's name for it (default 1)")
	completeTypes(cmd, a)
	f.VarP(&flagValue[uint16]{target: &m.Priority, parse: parseNumber[uint16](0, limits.PriorityMax), kind: "N"}, "priority", "p",
		"0 (default) to 32767, higher first")
	addList(f, &o.headers, "header", "NAME=VALUE", "a header (repeat for more)", parseHeader)
	addText(f, &m.ContentType, "content-type", "", "TYPE", "the media TYPE of the body")
	o.format.add(cmd)
	return cmd
}

func (a *app) request(ctx context.Context, cmd *cobra.Command, args []string, o *requestOptions) error {
	if _, bounded := ctx.Deadline(); !bounded { // the client would bound it by its own patience
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limits.DelayMax)
		defer cancel()
	}
	c, err := a.dial()
	if err != nil {
		return err
	}
	name := queueName(args[0])
	message := o.message
	message.Headers = headerMap(o.headers)
	if cmd.Flags().Changed("type") {
		if message.Type, err = resolveType(ctx, c, name, o.typ); err != nil {
			return err
		}
	}
	if message.Body, err = a.payload(ctx, args[1]); err != nil {
		return err
	}
	reply, err := c.Request(ctx, name, message)
	if err != nil {
		return ofOne(err)
	}
	m := showDelivery(reply, nil)
	m.receipt, m.leaseExpires = "", time.Time{} // there is nothing to settle
	p := a.newPrinter(&o.format)
	if err := p.print(m); err != nil {
		return err
	}
	return p.end()
}
