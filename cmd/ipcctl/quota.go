package main

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ipcd/ipcd/client"
	"github.com/ipcd/ipcd/internal/reason"
)

// resources are what quotas count, as flags name them (with hyphens).
var resources = []struct{ name, kind, usage string }{
	{client.ResourceQueues, "N", "queues that it may own"},
	{client.ResourceRings, "N", "rings that it may own"},
	{client.ResourceQueuedBytes, "SIZE", "bytes in the queues that it owns, whoever sent them"},
	{client.ResourceConnections, "N", "connections to any of the daemon's sockets"},
	{client.ResourceStreams, "N", "calls under way at once"},
	{client.ResourceReceivers, "N", "receives that wait, and streams of deliveries"},
}

func flagOf(resource string) string { return strings.ReplaceAll(resource, "_", "-") }

// quotasView is a principal's quotas as json and yaml show them.
type quotasView struct {
	Principal principalView `json:"principal"`
	Quotas    []quotaView   `json:"quotas"`
}

// principalView has one of its fields.
type principalView struct {
	UID         *uint32 `json:"uid,omitempty"`
	Certificate string  `json:"certificate,omitempty"`
	Anonymous   bool    `json:"anonymous,omitempty"`
}

type quotaView struct {
	Resource string `json:"resource"`
	Used     int64  `json:"used"`
	Limit    *int64 `json:"limit,omitempty"` // absent: no limit
	Source   string `json:"source"`
}

func viewQuotas(q client.Quotas) any {
	v := quotasView{Quotas: make([]quotaView, 0, len(q.Quotas))}
	switch q.Who.Kind {
	case "unix":
		v.Principal.UID = &q.Who.UID
	case "certificate":
		v.Principal.Certificate = q.Who.Name
	default:
		v.Principal.Anonymous = true
	}
	for _, of := range q.Quotas {
		view := quotaView{Resource: of.Resource, Used: of.Used, Source: of.Source}
		if of.Limit != client.Unlimited {
			view.Limit = new(of.Limit)
		}
		v.Quotas = append(v.Quotas, view)
	}
	return v
}

func newQuota(a *app) *cobra.Command {
	ls := newQuotaLs(a)
	cmd := &cobra.Command{
		Use:   "quota",
		Short: "What each user holds of the daemon and may hold; set it",
		Long: `Show and set quotas: how much of the daemon each user, or certificate that acts as no user, may hold. Queues,
rings and the bytes in queues are charged to the owner of the queue or ring; connections, calls and receivers to
the caller. Limits that are set with ipcctl quota set win over those of the configuration, and outlive the daemon.

Without a further word it lists, as ipcctl quota ls does.`,
		Example: ls.Example,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			names := []string{"ls", "set", "reset"}
			return usagef("unknown command %s%s; see ipcctl quota --help", quoteArg("quota "+args[0]), didYouMean(args[0], names))
		},
		RunE: ls.RunE,
	}
	cmd.Flags().AddFlagSet(ls.Flags())
	cmd.AddCommand(ls, newQuotaSet(a), newQuotaReset(a))
	return cmd
}

// quotaRow is a line of the table.
type quotaRow struct {
	who client.Principal
	client.Quota
}

var quotaColumns = []listColumn[quotaRow]{
	word("who", func(r quotaRow) string { return principalText(r.who) }),
	word("resource", func(r quotaRow) string { return escapeLine(r.Resource) }),
	{name: "used", right: true, show: func(r quotaRow) string { return amountText(r.Resource, r.Used) }},
	{name: "limit", right: true, show: func(r quotaRow) string { return amountText(r.Resource, r.Limit) }},
	word("source", func(r quotaRow) string { return escapeLine(r.Source) }),
}

func amountText(resource string, n int64) string {
	switch {
	case n == client.Unlimited:
		return "unlimited"
	case resource == client.ResourceQueuedBytes && n >= 0:
		return humanBytes(uint64(n))
	}
	return decimal(n)
}

// principalText names a principal as the commands take it: a user's name, or what its certificate has.
func principalText(p client.Principal) string {
	switch p.Kind {
	case "unix":
		return userName(p.UID)
	case "certificate":
		return "certificate " + escapeLine(p.Name)
	}
	return p.Kind
}

func newQuotaLs(a *app) *cobra.Command {
	var output string
	var all bool
	var who whoFlags
	cmd := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List what each user holds and may hold",
		Long: `List what each user holds and may hold: admins see everybody's, others their own. Source says where a limit comes
from: set (with ipcctl quota set), config (by name in the configuration), default, or exempt (root and the daemon's
user).

Of several users, the table shows what is used and what has a limit of its own; --all shows the rest too, and json
and yaml show all.`,
		Example: `  ipcctl quota
  ipcctl quota ls --user alice
  ipcctl quota ls -o json | jq '.quotas[] | select(.principal.uid == 1000)'`,
		Args: noArgs,
		RunE: a.short(func(ctx context.Context, _ *cobra.Command, _ []string) error {
			c, err := a.dial()
			if err != nil {
				return err
			}
			only, err := who.principal(nil)
			if err != nil {
				return err
			}
			var listed []client.Quotas
			for q, err := range c.Quotas(ctx) {
				if err != nil {
					return err
				}
				if only == nil || *only == q.Who {
					listed = append(listed, q)
				}
			}
			var b bytes.Buffer
			if output == "table" {
				a.writeQuotas(&b, listed, all || len(listed) == 1)
			} else if err := writeList(&b, output, "quotas", listed, viewQuotas); err != nil {
				return err
			}
			if len(listed) == 0 && only != nil {
				if err := mayList(ctx, c, *only); err != nil {
					return err
				}
				a.say("%s holds nothing and has no limits of its own", principalText(*only))
			}
			return a.print(b.String())
		}),
	}
	who.add(cmd, a, true)
	cmd.Flags().BoolVar(&all, "all", false, "show also what is not used")
	addOutput(cmd, &output, "table", "json", "yaml")
	return cmd
}

// mayList returns an error if the caller may not see the quota of who.
func mayList(ctx context.Context, c *client.Client, who client.Principal) error {
	info, err := c.Info(ctx)
	if err != nil {
		return err
	}
	own := client.Certificate(info.Caller.Name)
	switch {
	case info.Caller.User:
		own = client.User(info.Caller.UID)
	case info.Caller.Kind == "anonymous":
		own = client.Anonymous()
	}
	if info.Caller.Admin || who == own {
		return nil
	}
	return &client.Error{Reason: string(reason.AccessDenied), Index: client.Whole,
		Message: fmt.Sprintf("the quota of %s is for admins and for its owner to see", principalText(who))}
}

// writeQuotas writes a table; unless all is asked for, without what is not used and has no limit of its own.
func (a *app) writeQuotas(b *bytes.Buffer, listed []client.Quotas, all bool) {
	var rows []quotaRow
	for _, of := range listed {
		for _, q := range of.Quotas {
			if all || q.Used > 0 || q.Source == "set" || q.Source == "config" {
				rows = append(rows, quotaRow{of.Who, q})
			}
		}
	}
	if len(rows) > 0 {
		width, _ := a.size()
		writeColumns(b, a, quotaColumns, rows, true, width)
	}
}

// whoFlags say whose quotas are meant.
type whoFlags struct {
	user        *uint32
	certificate string
	anonymous   bool
}

// add adds the flags; that for users only if no argument names one.
func (w *whoFlags) add(cmd *cobra.Command, a *app, user bool) {
	f := cmd.Flags()
	if user {
		addFlag(f, &w.user, "user", "USER", "only this user, by name or uid", pointer(lookupUID))
		complete(cmd, "user", a.completeUsers)
	}
	addText(f, &w.certificate, "certificate", "", "NAME", "who holds the certificate of this NAME: its SPIFFE ID, else its subject")
	f.BoolVar(&w.anonymous, "anonymous", false, "all callers together of whom nothing is known")
	complete(cmd, "certificate", cobra.NoFileCompletions)
}

// principal returns whom the flags, or a user named as an argument, mean; nil: nobody was named.
func (w *whoFlags) principal(args []string) (*client.Principal, error) {
	var found []client.Principal
	for _, arg := range args {
		uid, err := lookupUID(arg)
		if err != nil {
			return nil, usagef("%v", err)
		}
		found = append(found, client.User(uid))
	}
	if w.user != nil {
		found = append(found, client.User(*w.user))
	}
	if w.certificate != "" {
		found = append(found, client.Certificate(w.certificate))
	}
	if w.anonymous {
		found = append(found, client.Anonymous())
	}
	switch len(found) {
	case 0:
		return nil, nil
	case 1:
		return &found[0], nil
	}
	return nil, usagef("%s and %s exclude each other: name one", found[0], found[1])
}

// one is principal for a command that changes something.
func (w *whoFlags) one(cmd *cobra.Command, args []string) (client.Principal, error) {
	p, err := w.principal(args)
	if err == nil && p == nil {
		err = usagef("say whose: a USER, --certificate NAME or --anonymous; see %s --help", cmd.CommandPath())
	}
	return value(p), err
}

// completeUsers completes with the users that the daemon knows.
func (a *app) completeUsers(cmd *cobra.Command, _ []string, begin string) ([]string, cobra.ShellCompDirective) {
	c, err := a.dial()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
	defer cancel()
	var names []string
	for q, err := range c.Quotas(ctx) {
		if err != nil {
			break
		}
		if name := userName(q.Who.UID); q.Who.Kind == "unix" && strings.HasPrefix(name, begin) {
			names = append(names, name)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeOneUser is completeUsers for the first argument.
func (a *app) completeOneUser(cmd *cobra.Command, args []string, begin string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.completeUsers(cmd, args, begin)
}
