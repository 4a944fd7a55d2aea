package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/ipcd/ipcd/client"
)

func newCreate(a *app) *cobra.Command {
	var s settingsFlags
	var exclusive bool
	cmd := &cobra.Command{
		Use:   "create QUEUE...",
		Short: "Create queues",
		Long: `Create queues. Where a queue with the same settings exists this succeeds and says so; where one with
other settings exists it fails and names the difference (ipcctl update changes settings).

What a queue acknowledged is on disk and survives a crash, unless it is created with --durability memory.

Sizes are bytes, or 64KiB, 16MiB, 1GiB; durations 500ms, 30s, 5m, 1h30m, 2d.`,
		Example: `  ipcctl create /jobs
  ipcctl create /jobs --max-messages 10000 --max-message-size 1MiB --lease 1m
  ipcctl create /jobs --type-name created=7,failed=8 --max-attempts 5 --dead-letter /jobs.dead
  ipcctl create /metrics --durability memory --overflow drop-oldest
  ipcctl create /jobs --mqueue both --mqueue-out-type failed --type-name failed=8 --mode 0660 --group adm`,
		Args: queueArgs(1, anyNumber),
		RunE: a.short(func(ctx context.Context, cmd *cobra.Command, args []string) error {
			return a.each(ctx, args, func(name string) error { return a.create(ctx, cmd, queueName(name), &s, exclusive) })
		}),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	s.add(cmd)
	cmd.Flags().BoolVar(&exclusive, "exclusive", false, "fail where the queue exists, even with the same settings")
	return cmd
}

func (a *app) create(ctx context.Context, cmd *cobra.Command, name string, s *settingsFlags, exclusive bool) error {
	settings, err := s.forQueue(ctx, cmd.Flags(), name, nil)
	if err != nil {
		return err
	}
	if !cmd.Flags().Changed("backoff-max") {
		settings.BackoffMax = settings.BackoffInitial
	}
	c, err := a.dial()
	if err != nil {
		return err
	}
	var created bool
	options := []client.CreateOption{client.ReportCreated(&created)}
	if exclusive {
		options = append(options, client.Exclusive())
	}
	info, err := c.CreateQueue(ctx, name, settings, options...)
	if err != nil {
		return err
	}
	if created {
		a.say("created %s", escapeLine(info.Name))
	} else {
		a.say("%s exists, with the same settings", escapeLine(info.Name))
	}
	a.sayDoors(info)
	return nil
}

// sayDoors tells about kernel queues that are not open.
func (a *app) sayDoors(info client.QueueInfo) {
	for _, k := range info.KernelQueues {
		if k.Problem != "" {
			a.say("kernel queue %s (%s): %s", escapeLine(k.Name), escapeLine(k.Direction), escapeLine(k.Problem))
		}
	}
}

func newUpdate(a *app) *cobra.Command {
	var s settingsFlags
	cmd := &cobra.Command{
		Use:   "update QUEUE...",
		Short: "Change settings of queues",
		Long: `Change those settings of queues whose flags are given; the others stay. --type-name replaces all of the
queue's names for types.

` + patternHelp,
		Example: `  ipcctl update /jobs --lease 1m
  ipcctl update 'jobs.*' --max-attempts 5
  ipcctl update /jobs --type-name created=7,failed=8
  ipcctl update /jobs --dead-letter ''`,
		Args: queuesArgs,
		RunE: a.short(func(ctx context.Context, cmd *cobra.Command, args []string) error {
			fields := s.given(cmd.Flags())
			if len(fields) == 0 {
				return usagef("nothing to change: give a setting, as in ipcctl update %s --lease 1m", escapeLine(args[0]))
			}
			return a.eachNamed(ctx, args, func(ctx context.Context, a *app, name string) error {
				return a.update(ctx, cmd, name, &s, fields)
			})
		}),
		ValidArgsFunction: a.completeQueues(anyNumber),
	}
	s.add(cmd)
	return cmd
}

func (a *app) update(ctx context.Context, cmd *cobra.Command, name string, s *settingsFlags, fields []string) error {
	c, err := a.dial()
	if err != nil {
		return err
	}
	settings, err := s.forQueue(ctx, cmd.Flags(), name, c.GetQueue)
	if err != nil {
		return err
	}
	info, err := c.UpdateQueue(ctx, name, settings, fields...)
	if err != nil {
		return err
	}
	a.say("updated %s", escapeLine(info.Name))
	a.sayDoors(info)
	return nil
}
