package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ipcd/ipcd/client"
	"github.com/ipcd/ipcd/internal/limits"
)

const (
	// receiveAtOnce is how many messages are asked for in one call. With --ack they are fewer at first, and
	// again whenever printing took longer than promptly, so that a slow reader of our output does not
	// outlast their leases.
	receiveAtOnce    = 1024
	receiveAtOnceAck = 64
	promptly         = 100 * time.Millisecond
	// followWait is how long one call waits with --follow. A call that is interrupted may lose sight of
	// messages it was just given, so calls are short and run to their end instead.
	followWait = 500 * time.Millisecond
	// settleGrace is how long giving back or acking may take after an interruption.
	settleGrace = 5 * time.Second
)

type recvOptions struct {
	selector string
	number   int64
	wait     time.Duration
	lease    time.Duration
	ack      bool
	follow   bool
	format   messageFormat
}

func newRecv(a *app) *cobra.Command {
	o := recvOptions{number: 1}
	cmd := &cobra.Command{
		Use:     "recv QUEUE...",
		Aliases: []string{"receive"},
		Short:   "Receive messages: lease them, or with --ack consume them",
		Long: `Receive messages. They are leased: shown with a receipt, hidden from other receivers until the lease
ends, and gone once they are acked (ipcctl ack RECEIPT). With --ack they are consumed as soon as they have
been printed. Of several queues, each gets its turn.

Without --wait it never waits; with nothing to receive it exits 6. With --follow it goes on until it is
interrupted: what was fetched and not printed is given back, uncounted; what was printed stays leased
or, with --ack, is consumed.`,
		Example: `  ipcctl recv /jobs
  ipcctl recv /jobs --ack -o raw
  ipcctl recv /jobs --type 'upto:7' -n 10 --wait 5s
  ipcctl recv /jobs --type created,failed --lease 5m -o json
  ipcctl recv /high /low --wait 5s
  ipcctl recv /jobs --follow --ack -o jsonl`,
		Args: queuesArgs,
		RunE: a.long(func(ctx context.Context, cmd *cobra.Command, args []string) error {
			switch changed := cmd.Flags().Changed; {
			case o.ack && changed("lease"):
				return usagef("--ack and --lease exclude each other: what is consumed is not leased")
			case o.follow && changed("wait"):
				return usagef("--follow and --wait exclude each other: --follow waits until it is interrupted")
			case o.follow && !changed("number"):
				o.number = 0
			}
			if err := o.format.check(cmd); err != nil {
				return err
			}
			return a.receive(ctx, args, &o)
		}),
		ValidArgsFunction: a.completeQueues(anyNumber),
	}
	f := cmd.Flags()
	addSelector(cmd, a, &o.selector, "only the types in SEL: 7, upto:7, not:7, 1,2,3 or names")
	f.VarP(&flagValue[int64]{target: &o.number, parse: positive[int64](parseCount), kind: "N"}, "number", "n",
		"at most so many messages (default 1, with --follow all)")
	addFlag(f, &o.wait, "wait", "DURATION", "wait so long for the first message (default: not at all)", parseDuration)
	addFlag(f, &o.lease, "lease", "DURATION", "how long to lease them (default: as the queue says)", positiveDuration)
	f.BoolVar(&o.ack, "ack", false, "consume what was printed, instead of leasing it")
	f.BoolVarP(&o.follow, "follow", "f", false, "go on with messages as they arrive")
	o.format.add(cmd)
	return cmd
}

// receiver is one recv at work.
type receiver struct {
	a       *app
	client  *client.Client
	queues  []string
	options *recvOptions
	request client.ReceiveOptions
	printer *printer
	names   map[string]map[int64]string // of types, by queue
	printed int64
	ackable int64              // how many to ask for at once with --ack
	leased  []*client.Delivery // the first few printed and left leased
}

func (a *app) receive(ctx context.Context, args []string, o *recvOptions) error {
	c, err := a.dial()
	if err != nil {
		return err
	}
	n, err := a.named(ctx, args)
	if err != nil {
		return err
	}
	if len(n.names) > limits.ReceiveQueues {
		return usagef("%d queues: recv takes up to %d at once; name fewer", len(n.names), limits.ReceiveQueues)
	}
	selector, err := commonSelector(ctx, c, n.names, o.selector)
	if err != nil {
		return err
	}
	names := map[string]map[int64]string{}
	for _, name := range n.names {
		if names[name], err = a.typeNames(ctx, c, name, &o.format); err != nil {
			return err
		}
	}
	o.format.namesQueues = len(n.names) > 1
	r := &receiver{
		a: a, client: c, queues: n.names, options: o, printer: a.newPrinter(&o.format), names: names,
		request: client.ReceiveOptions{Selector: selector, Wait: o.wait, Lease: o.lease},
	}
	err = r.loop(ctx)
	var broken *writeError
	if !errors.As(err, &broken) {
		if endErr := r.printer.end(); err == nil {
			err = endErr
		}
	}
	r.sayLeased()
	if err == nil && r.printed == 0 && !o.follow {
		return &empty{r.emptyText(ctx)}
	}
	return err
}

// loop fetches, prints and settles until there is enough, or no more.
func (r *receiver) loop(ctx context.Context) error {
	for {
		deliveries, err := r.fetch(ctx)
		if err != nil {
			return err
		}
		if err := r.handle(ctx, deliveries); err != nil {
			return err
		}
		o := r.options
		switch {
		case ctx.Err() != nil:
			if o.follow && errors.Is(ctx.Err(), context.Canceled) {
				return nil
			}
			return ctx.Err()
		case o.number > 0 && r.printed >= o.number:
			return nil
		case len(deliveries) == 0 && !o.follow:
			return nil
		}
		r.request.Wait = 0 // more is taken only if it is there
	}
}

// fetch receives the next messages.
func (r *receiver) fetch(ctx context.Context) ([]*client.Delivery, error) {
	n := int64(receiveAtOnce)
	if r.options.ack {
		n = max(r.ackable, receiveAtOnceAck)
	}
	if r.options.number > 0 {
		n = min(n, r.options.number-r.printed)
	}
	request := r.request
	if r.options.follow {
		request.Wait = followWait
		ctx = context.WithoutCancel(ctx)
	}
	if len(r.queues) > 1 {
		return r.client.ReceiveAny(ctx, r.queues, int(n), request)
	}
	return r.client.Queue(r.queues[0]).Receive(ctx, int(n), request)
}

// handle prints messages. Those printed are acked if so asked; those not printed, because we were
// interrupted or cannot write, are given back.
func (r *receiver) handle(ctx context.Context, deliveries []*client.Delivery) error {
	if len(deliveries) == 0 {
		return nil
	}
	var printErr error
	printed := 0
	began := time.Now()
	for _, d := range deliveries {
		if ctx.Err() != nil {
			break
		}
		m := showDelivery(d, r.names[d.Queue])
		if r.options.ack { // by the time anybody reads it, it is consumed
			m.receipt, m.leaseExpires = "", time.Time{}
		}
		if printErr = r.printer.print(m); printErr != nil {
			break
		}
		printed++
	}
	r.printed += int64(printed)
	if r.ackable = min(2*int64(len(deliveries)), receiveAtOnce); time.Since(began) > promptly {
		r.ackable = 0
	}
	settleErr := r.settle(ctx, deliveries[:printed], deliveries[printed:])
	switch {
	case settleErr == nil:
		return printErr
	case printErr != nil && !isBrokenPipe(printErr):
		r.a.report(settleErr, 0)
		return printErr
	}
	return settleErr // a reader that went away is no failure, this is
}

func (r *receiver) settle(ctx context.Context, printed, unprinted []*client.Delivery) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleGrace)
	defer cancel()
	var settlements []client.Settlement
	if r.options.ack {
		for _, d := range printed {
			settlements = append(settlements, client.Settlement{Receipt: d.Receipt, Outcome: client.OutcomeAck})
		}
	} else {
		r.leased = append(r.leased, printed[:min(len(printed), maxReceiptsShown+1-len(r.leased))]...)
	}
	acks := len(settlements)
	for _, d := range unprinted {
		settlements = append(settlements, client.Settlement{Receipt: d.Receipt, Outcome: client.OutcomeRelease})
	}
	if len(settlements) == 0 {
		return nil
	}
	err := r.client.Settle(ctx, settlements...)
	var some *client.SettleError
	if !errors.As(err, &some) {
		if err != nil && acks > 0 {
			return fmt.Errorf("%s may come again, they could not be acked: %w", count(acks, "printed message"), err)
		}
		return err
	}
	// A message whose lease ended before it was given back is back already.
	lost := 0
	for _, f := range some.Failures {
		if f.Index < acks {
			lost++
		}
	}
	if lost == 0 {
		return nil
	}
	return fmt.Errorf("%s will come again: the lease ended before it was printed and acked (%w)", count(lost, "printed message"), some.Failures[0])
}

// maxReceiptsShown is how many receipts the hint spells out.
const maxReceiptsShown = 4

// sayLeased says for how long messages are leased and what to do with them.
func (r *receiver) sayLeased() {
	var receipts []string
	var left time.Duration
	for _, d := range r.leased {
		if remains := time.Until(d.LeaseExpires).Round(time.Second); remains > 0 {
			receipts = append(receipts, escapeLine(string(d.Receipt)))
			left = remains
		}
	}
	switch {
	case len(receipts) == 0:
		return
	case len(receipts) > maxReceiptsShown:
		receipts = []string{"RECEIPT..."}
	}
	r.a.say("leased for %s; when done: ipcctl ack %s", humanDuration(left), strings.Join(receipts, " "))
}

func (r *receiver) emptyText(ctx context.Context) string {
	for _, name := range r.queues[:min(len(r.queues), atOnce)] {
		if q, err := r.client.GetQueue(ctx, name); err == nil && q.Paused {
			return fmt.Sprintf("%s is paused; ipcctl resume %s lets deliveries go on", q.Name, q.Name)
		}
	}
	where := r.queues[0]
	if len(r.queues) > 1 {
		where = count(len(r.queues), "queue")
	}
	text := "no message"
	if kind := r.request.Selector.Kind(); kind != client.SelectAny {
		text += " of type " + escapeLine(r.options.selector)
	}
	if r.options.wait > 0 {
		return fmt.Sprintf("%s came to %s within %v", text, where, r.options.wait)
	}
	return fmt.Sprintf("%s is ready in %s; --wait 5s waits for one", text, where)
}
