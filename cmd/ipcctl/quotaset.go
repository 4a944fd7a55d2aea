package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ipcd/ipcd/client"
)

func newQuotaSet(a *app) *cobra.Command {
	var who whoFlags
	limits := map[string]*int64{}
	cmd := &cobra.Command{
		Use:   "set USER|--certificate NAME|--anonymous --RESOURCE N|unlimited...",
		Short: "Set limits of a user, a certificate or anonymous callers",
		Long: `Set those limits that are named; the others stay. What is held beyond a limit stays too, and nothing can be added
to it. Limits that are set win over those of the configuration, and outlive the daemon. Only admins may set them.`,
		Example: `  ipcctl quota set alice --queues 10 --queued-bytes 1GiB
  ipcctl quota set 1000 --streams unlimited
  ipcctl quota set --certificate spiffe://example.org/worker --connections 4
  ipcctl quota set --anonymous --queued-bytes 0`,
		Args: oneUser,
		RunE: a.short(func(ctx context.Context, cmd *cobra.Command, args []string) error {
			p, err := who.one(cmd, args)
			if err != nil {
				return err
			}
			change := client.QuotaChange{Limits: map[string]int64{}}
			for resource, limit := range limits {
				if cmd.Flags().Changed(flagOf(resource)) {
					change.Limits[resource] = *limit
				}
			}
			if len(change.Limits) == 0 {
				return usagef("nothing to set: name a limit, as in: ipcctl quota set alice --queues 10")
			}
			return a.changeQuota(ctx, p, change)
		}),
		ValidArgsFunction: a.completeOneUser,
	}
	who.add(cmd, a, false)
	for _, r := range resources {
		limits[r.name] = new(int64)
		parse := limited[int64](parseCount)
		if r.kind == "SIZE" {
			parse = limited[int64](parseSize)
		}
		addFlag(cmd.Flags(), limits[r.name], flagOf(r.name), r.kind, r.usage+", or unlimited", func(s string) (int64, error) {
			if s == "unlimited" {
				return client.Unlimited, nil
			}
			n, err := parse(s)
			if err != nil {
				return 0, fmt.Errorf("%w, or unlimited", err)
			}
			return n, nil
		})
		completeWords(cmd, flagOf(r.name), []string{"unlimited"})
	}
	cmd.Flags().SortFlags = false
	return cmd
}

func newQuotaReset(a *app) *cobra.Command {
	var who whoFlags
	which := map[string]*bool{}
	cmd := &cobra.Command{
		Use:   "reset USER|--certificate NAME|--anonymous [--RESOURCE...]",
		Short: "Forget limits that were set, so that the configuration counts again",
		Long: `Forget limits that were set with ipcctl quota set: those that are named, or all if none is. Then those of the
configuration count again. Only admins may.`,
		Example: `  ipcctl quota reset alice
  ipcctl quota reset alice --queues --queued-bytes
  ipcctl quota reset --anonymous`,
		Args: oneUser,
		RunE: a.short(func(ctx context.Context, cmd *cobra.Command, args []string) error {
			p, err := who.one(cmd, args)
			if err != nil {
				return err
			}
			var change client.QuotaChange
			all := !slices.ContainsFunc(resources, func(r struct{ name, kind, usage string }) bool { return *which[r.name] })
			for _, r := range resources {
				if all || *which[r.name] {
					change.Reset = append(change.Reset, r.name)
				}
			}
			return a.changeQuota(ctx, p, change)
		}),
		ValidArgsFunction: a.completeOneUser,
	}
	who.add(cmd, a, false)
	for _, r := range resources {
		which[r.name] = cmd.Flags().Bool(flagOf(r.name), false, "only, or also, the limit of "+strings.ReplaceAll(r.name, "_", " "))
	}
	cmd.Flags().SortFlags = false
	return cmd
}

// oneUser wants one user at most.
func oneUser(cmd *cobra.Command, args []string) error {
	if len(args) > 1 {
		return usagef("%s takes one user, %s is too much; see %s --help", commandName(cmd), quoteArg(args[1]), cmd.CommandPath())
	}
	return nil
}

// changeQuota changes limits and says what they are now.
func (a *app) changeQuota(ctx context.Context, who client.Principal, change client.QuotaChange) error {
	c, err := a.dial()
	if err != nil {
		return err
	}
	now, err := c.SetQuota(ctx, who, change)
	if err != nil {
		return err
	}
	for _, q := range now.Quotas {
		if _, set := change.Limits[q.Resource]; !set && !slices.Contains(change.Reset, q.Resource) {
			continue
		}
		a.say("%s: %s %s (%s), %s used", principalText(who), escapeLine(q.Resource), amountText(q.Resource, q.Limit), escapeLine(q.Source), amountText(q.Resource, q.Used))
	}
	return nil
}
