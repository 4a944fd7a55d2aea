package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ipcd/ipcd/client"
)

var settleHelp = map[client.Outcome]struct{ short, done string }{
	client.OutcomeAck:     {"Remove delivered messages: they are done", "acked"},
	client.OutcomeNack:    {"Give back delivered messages that failed; it counts as an attempt", "nacked"},
	client.OutcomeTouch:   {"Restart the leases of delivered messages from now", "touched"},
	client.OutcomeRelease: {"Give back delivered messages without counting an attempt", "released"},
	client.OutcomeBury:    {"Set delivered messages aside until they are kicked", "buried"},
}

// newSettle makes ack, nack, touch, release or bury.
func newSettle(a *app, outcome client.Outcome) *cobra.Command {
	name, help := outcome.String(), settleHelp[outcome]
	settlement := client.Settlement{Outcome: outcome, Delay: client.Backoff}
	cmd := &cobra.Command{
		Use:     name + " RECEIPT...",
		Short:   help.short,
		Long:    help.short + ".\n\nReceipts are what recv shows. Each is settled for itself; a receipt whose lease is over is stale and changes nothing.",
		Example: fmt.Sprintf("  ipcctl %s 1.1.42.1.k3x9z1\n  ipcctl recv /jobs -n 10 -o jsonl | jq -r .receipt | xargs ipcctl %s", name, name),
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("give a receipt, as recv shows it; see %s --help", cmd.CommandPath())
			}
			return nil
		},
		RunE: a.short(func(ctx context.Context, _ *cobra.Command, args []string) error {
			if outcome == client.OutcomeTouch {
				return a.touch(ctx, args, settlement.Lease)
			}
			return a.settle(ctx, args, settlement, help.done)
		}),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	f := cmd.Flags()
	switch outcome {
	case client.OutcomeNack:
		addFlag(f, &settlement.Delay, "delay", "DURATION", "come again after this long (default: the queue's back-off)", parseDuration)
		addText(f, &settlement.Reason, "reason", "", "TEXT", "why, a TEXT for the dead-letter queue's headers")
	case client.OutcomeBury:
		addText(f, &settlement.Reason, "reason", "", "TEXT", "why, a TEXT that peek shows")
	case client.OutcomeTouch:
		addFlag(f, &settlement.Lease, "lease", "DURATION", "how long from now (default: as long as the lease was)", positiveDuration)
	}
	return cmd
}

func (a *app) settle(ctx context.Context, receipts []string, like client.Settlement, done string) error {
	c, err := a.dial()
	if err != nil {
		return err
	}
	settlements := make([]client.Settlement, len(receipts))
	for i, r := range receipts {
		settlements[i] = like
		settlements[i].Receipt = client.Receipt(r)
	}
	err = c.Settle(ctx, settlements...)
	var some *client.SettleError
	if err != nil && !errors.As(err, &some) {
		return err
	}
	failed := 0
	if some != nil {
		failed = len(some.Failures)
		for _, f := range some.Failures {
			a.say("ipcctl: %s", escapeLine(failureText(f, receipts)))
		}
	}
	if n := len(receipts) - failed; n > 0 {
		a.say("%s %s", done, count(n, "message"))
	}
	if some != nil {
		return reported(exitCode(some))
	}
	return nil
}

// failureText says which receipt failed and why.
func failureText(f *client.Error, receipts []string) string {
	if f.Index < 0 || f.Index >= len(receipts) {
		return f.Error()
	}
	receipt := receipts[f.Index]
	if strings.Contains(f.Message, receipt) {
		return f.Message
	}
	return receipt + ": " + f.Message
}

func (a *app) touch(ctx context.Context, receipts []string, lease time.Duration) error {
	c, err := a.dial()
	if err != nil {
		return err
	}
	return a.each(ctx, receipts, func(receipt string) error {
		end, err := c.Touch(ctx, client.Receipt(receipt), lease)
		if err != nil {
			return fmt.Errorf("%s: %w", escapeLine(receipt), err)
		}
		return a.print(fmt.Sprintf("%s leased until %s\n", receipt, machineTime(end)))
	})
}
