package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/ipcd/ipcd/client"
)

func newRingCreate(a *app) *cobra.Command {
	var r ringFlags
	var exclusive bool
	cmd := &cobra.Command{
		Use:   "create RING...",
		Short: "Create rings",
		Long: `Create rings. Where a ring with the same settings exists this succeeds and says so; where one with other
settings exists it fails and names the difference (ipcctl ring update changes some of them).

Capacity is that of each producer's lane, and memory is taken when a producer attaches. A ring's definition is on
disk. Its messages are in memory: a restart of the daemon leaves the lanes of those producers that are attached, a
restart of the host leaves none.

Sizes are bytes, or 64KiB, 16MiB, 1GiB; durations 500ms, 1s.`,
		Example: `  ipcctl ring create /ticks --capacity 32MiB --policy overwrite --mode 0660
  ipcctl ring create /trades --policy lossless --stall 500ms --group trading --mode 0660
  ipcctl ring create /frames --capacity 256MiB --max-message 16MiB --retain 0`,
		Args: ringArgs(1, anyNumber),
		RunE: a.short(func(ctx context.Context, _ *cobra.Command, args []string) error {
			return a.each(ctx, args, func(name string) error { return a.createRing(ctx, queueName(name), r.settings, exclusive) })
		}),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	r.add(cmd, true)
	cmd.Flags().BoolVar(&exclusive, "exclusive", false, "fail where the ring exists, even with the same settings")
	return cmd
}

func (a *app) createRing(ctx context.Context, name string, s client.RingSettings, exclusive bool) error {
	c, err := a.dial()
	if err != nil {
		return err
	}
	var created bool
	options := []client.CreateOption{client.ReportCreated(&created)}
	if exclusive {
		options = append(options, client.Exclusive())
	}
	info, err := c.CreateRing(ctx, name, s, options...)
	if err != nil {
		return err
	}
	if created {
		a.say("created %s", escapeLine(info.Name))
	} else {
		a.say("%s exists, with the same settings", escapeLine(info.Name))
	}
	return nil
}

func newRingUpdate(a *app) *cobra.Command {
	var r ringFlags
	cmd := &cobra.Command{
		Use:   "update RING...",
		Short: "Change settings of rings",
		Long: `Change those settings of rings whose flags are given; the others stay. Producers and consumers that may no
longer be there are sent away. Capacity, policy and the largest message are settled when a ring is made.`,
		Example: `  ipcctl ring update /ticks --mode 0664
  ipcctl ring update /trades --stall 2s --retain 1GiB`,
		Args: ringArgs(1, anyNumber),
		RunE: a.short(func(ctx context.Context, cmd *cobra.Command, args []string) error {
			fields := r.given(cmd.Flags())
			if len(fields) == 0 {
				return usagef("nothing to change: give a setting, as in ipcctl ring update %s --mode 0660", escapeLine(args[0]))
			}
			c, err := a.dial()
			if err != nil {
				return err
			}
			return a.each(ctx, args, func(name string) error {
				info, err := c.UpdateRing(ctx, queueName(name), r.settings, fields...)
				if err == nil {
					a.say("updated %s", escapeLine(info.Name))
				}
				return err
			})
		}),
		ValidArgsFunction: a.completeRings(anyNumber),
	}
	r.add(cmd, false)
	return cmd
}
