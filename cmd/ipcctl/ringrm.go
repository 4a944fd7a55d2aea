package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
)

func newRingRm(a *app) *cobra.Command {
	var force, dryRun bool
	cmd := &cobra.Command{
		Use:     "rm RING...",
		Aliases: []string{"delete"},
		Short:   "Delete rings and all that is in them",
		Long: `Delete rings. Their producers and consumers are told, and end. On a terminal it asks first; elsewhere it
needs --force.`,
		Example: `  ipcctl ring rm /ticks
  ipcctl ring rm /ticks /trades --force
  ipcctl ring rm /ticks --dry-run`,
		Args: ringArgs(1, anyNumber),
		RunE: a.long(func(ctx context.Context, _ *cobra.Command, args []string) error {
			return a.each(ctx, args, func(arg string) error { return a.removeRing(ctx, queueName(arg), force, dryRun) })
		}),
		ValidArgsFunction: a.completeRings(anyNumber),
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "do not ask")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would be deleted")
	return cmd
}

func (a *app) removeRing(ctx context.Context, name string, force, dryRun bool) error {
	c, err := a.dial()
	if err != nil {
		return err
	}
	if !force || dryRun {
		info, err := c.GetRing(ctx, name)
		if err != nil {
			return noSuchRing(err)
		}
		what := fmt.Sprintf("delete the ring %s with %s", escapeLine(info.Name), members(info))
		if dryRun {
			return a.print("would " + what + "\n")
		}
		if err := a.confirm(ctx, force, what); err != nil {
			return err
		}
	}
	if err := c.DeleteRing(ctx, name); err != nil {
		return noSuchRing(err)
	}
	a.say("deleted %s", escapeLine(name))
	return nil
}
