package main

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/spf13/cobra"

	"github.com/ipcd/ipcd/client"
)

func newPause(a *app) *cobra.Command {
	return a.simple("pause", "Stop deliveries from queues; sends go on", "paused", (*client.Client).PauseQueue)
}

func newResume(a *app) *cobra.Command {
	return a.simple("resume", "Let deliveries from queues go on", "resumed", (*client.Client).ResumeQueue)
}

// simple makes a command that does one thing to each queue.
func (a *app) simple(name, short, done string, do func(*client.Client, context.Context, string) (client.QueueInfo, error)) *cobra.Command {
	return &cobra.Command{
		Use:     name + " QUEUE...",
		Short:   short,
		Long:    short + ". " + patternHelp,
		Example: fmt.Sprintf("  ipcctl %s /jobs\n  ipcctl %s /mail 'jobs.*'", name, name),
		Args:    queuesArgs,
		RunE: a.short(func(ctx context.Context, _ *cobra.Command, args []string) error {
			return a.eachNamed(ctx, args, func(ctx context.Context, a *app, name string) error {
				c, err := a.dial()
				if err != nil {
					return err
				}
				info, err := do(c, ctx, name)
				if err == nil {
					a.say("%s %s", done, escapeLine(info.Name))
				}
				return err
			})
		}),
		ValidArgsFunction: a.completeQueues(anyNumber),
	}
}

func newRm(a *app) *cobra.Command {
	var force, dryRun bool
	cmd := &cobra.Command{
		Use:     "rm QUEUE...",
		Aliases: []string{"delete"},
		Short:   "Delete queues and all that is in them",
		Long: `Delete queues, their messages and their kernel queues. On a terminal it asks first; elsewhere it needs
--force. ` + patternHelp,
		Example: `  ipcctl rm /jobs
  ipcctl rm /jobs /jobs.dead --force
  ipcctl rm 'test.*' --dry-run`,
		Args: queuesArgs,
		RunE: a.long(func(ctx context.Context, _ *cobra.Command, args []string) error {
			n, err := a.named(ctx, args)
			if err != nil {
				return err
			}
			force := force
			if n.globbed() && !force && !dryRun { // one question for all that was found
				messages, err := a.messagesOf(ctx, n)
				if err != nil {
					return err
				}
				what := fmt.Sprintf("delete %s with %s", count(len(n.names), "queue"), count(messages, "message"))
				if err := a.confirm(ctx, force, what); err != nil {
					return err
				}
				force = true
			}
			return a.eachAsked(ctx, n.names, force || dryRun, func(ctx context.Context, a *app, name string) error {
				return a.remove(ctx, name, force, dryRun)
			})
		}),
		ValidArgsFunction: a.completeQueues(anyNumber),
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "do not ask")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would be deleted")
	return cmd
}

func (a *app) remove(ctx context.Context, name string, force, dryRun bool) error {
	c, err := a.dial()
	if err != nil {
		return err
	}
	if !force || dryRun {
		info, err := c.GetQueue(ctx, name)
		if err != nil {
			return err
		}
		what := fmt.Sprintf("delete %s with %s", escapeLine(info.Name), count(info.Stats.Messages(), "message"))
		if dryRun {
			return a.print("would " + what + "\n")
		}
		if err := a.confirm(ctx, force, what); err != nil {
			return err
		}
	}
	messages, err := c.DeleteQueue(ctx, name)
	if err != nil {
		return err
	}
	a.say("deleted %s with %s", name, count(messages, "message"))
	return nil
}

func newPurge(a *app) *cobra.Command {
	var f filterFlags
	var force, dryRun bool
	var limit int64
	cmd := &cobra.Command{
		Use:   "purge QUEUE...",
		Short: "Remove messages for good",
		Long: `Remove messages for good: all that are ready, delayed or buried, or those that the filters leave. Leased
ones are removed only with --state leased or all. On a terminal it asks first; elsewhere it needs --force.
` + patternHelp,
		Example: `  ipcctl purge /jobs
  ipcctl purge /jobs --type failed --older-than 1h --dry-run
  ipcctl purge /jobs --seq 42 --force
  ipcctl purge 'test.*' --force`,
		Args: queuesArgs,
		RunE: a.long(func(ctx context.Context, _ *cobra.Command, args []string) error {
			n, err := a.named(ctx, args)
			if err != nil {
				return err
			}
			force := force
			if n.globbed() && !force && !dryRun {
				if force, err = a.confirmPurge(ctx, n, &f, limit); err != nil || !force {
					return err
				}
			}
			return a.eachAsked(ctx, n.names, force || dryRun, func(ctx context.Context, a *app, name string) error {
				return a.purge(ctx, name, &f, limit, force, dryRun)
			})
		}),
		ValidArgsFunction: a.completeQueues(anyNumber),
	}
	f.add(cmd, a)
	f.addStates(cmd, "only these states: ready,delayed,buried (default), leased or all")
	addFlag(cmd.Flags(), &limit, "limit", "N", "at most so many messages (default all)", positive[int64](parseCount))
	cmd.Flags().BoolVarP(&force, "force", "f", false, "do not ask")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only count what would be removed")
	return cmd
}

func (a *app) purge(ctx context.Context, name string, f *filterFlags, limit int64, force, dryRun bool) error {
	c, err := a.dial()
	if err != nil {
		return err
	}
	filter, err := f.filter(ctx, c, name)
	if err != nil {
		return err
	}
	if !force || dryRun {
		n, err := a.selected(ctx, c.PurgeQueue, name, client.SelectOptions{Filter: filter, Limit: limit, DryRun: true}, "counted")
		if err != nil {
			return err
		}
		what := fmt.Sprintf("remove %s from %s", count(n, "message"), name)
		if dryRun {
			return a.print("would " + what + "\n")
		}
		if n == 0 {
			a.say("nothing to remove from %s", name)
			return nil
		}
		if err := a.confirm(ctx, force, what); err != nil {
			return err
		}
	}
	n, err := a.selected(ctx, c.PurgeQueue, name, client.SelectOptions{Filter: filter, Limit: limit}, "removed")
	if err == nil || n > 0 {
		a.say("removed %s from %s", count(n, "message"), name)
	}
	return err
}

// confirmPurge counts what would be removed from queues found by a pattern, and asks once for all of it. False: there is nothing.
func (a *app) confirmPurge(ctx context.Context, n *named, f *filterFlags, limit int64) (bool, error) {
	var total atomic.Int64
	err := a.eachAtOnce(ctx, n.names, func(ctx context.Context, a *app, name string) error {
		c, err := a.dial()
		if err != nil {
			return err
		}
		filter, err := f.filter(ctx, c, name)
		if err != nil {
			return err
		}
		messages, err := c.PurgeQueue(ctx, name, client.SelectOptions{Filter: filter, Limit: limit, DryRun: true})
		total.Add(messages)
		return err
	})
	if err != nil {
		return false, err
	}
	if total.Load() == 0 {
		a.say("nothing to remove from %s", count(len(n.names), "queue"))
		return false, nil
	}
	what := fmt.Sprintf("remove %s from %s", count(total.Load(), "message"), count(len(n.names), "queue"))
	return true, a.confirm(ctx, false, what)
}

func newKick(a *app) *cobra.Command {
	var f filterFlags
	var dryRun bool
	var limit int64
	cmd := &cobra.Command{
		Use:   "kick QUEUE...",
		Short: "Return buried messages to ready",
		Long:  "Return buried messages to ready: all of them, or those that the filters leave. " + patternHelp,
		Example: `  ipcctl kick /jobs
  ipcctl kick /jobs --type failed --limit 1
  ipcctl kick 'jobs.*' --older-than 1h --dry-run`,
		Args: queuesArgs,
		RunE: a.long(func(ctx context.Context, _ *cobra.Command, args []string) error {
			return a.eachNamed(ctx, args, func(ctx context.Context, a *app, name string) error {
				return a.kick(ctx, name, &f, limit, dryRun)
			})
		}),
		ValidArgsFunction: a.completeQueues(anyNumber),
	}
	f.add(cmd, a)
	addFlag(cmd.Flags(), &limit, "limit", "N", "at most so many messages (default all)", positive[int64](parseCount))
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only count what would be kicked")
	return cmd
}

func (a *app) kick(ctx context.Context, name string, f *filterFlags, limit int64, dryRun bool) error {
	c, err := a.dial()
	if err != nil {
		return err
	}
	filter, err := f.filter(ctx, c, name)
	if err != nil {
		return err
	}
	n, err := a.selected(ctx, c.KickQueue, name, client.SelectOptions{Filter: filter, Limit: limit, DryRun: dryRun}, "kicked")
	if dryRun {
		if err != nil {
			return err
		}
		return a.print(fmt.Sprintf("would kick %s in %s\n", count(n, "message"), name))
	}
	if err == nil || n > 0 {
		a.say("kicked %s in %s", count(n, "message"), name)
	}
	return err
}

// selected purges or kicks, and shows on a terminal how far it has come.
func (a *app) selected(ctx context.Context, do func(context.Context, string, client.SelectOptions) (int64, error), name string, o client.SelectOptions, done string) (int64, error) {
	p := a.newProgress()
	defer p.clear()
	o.Progress = func(n int64) { p.show("%s %s …", done, count(n, "message")) }
	return do(ctx, name, o)
}
