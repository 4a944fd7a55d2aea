package main

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ipcd/ipcd/client"
)

// clientView is a connection as json and yaml show it.
type clientView struct {
	ID            uint64          `json:"id"`
	Door          string          `json:"door"`
	Caller        callerView      `json:"caller"`
	Command       string          `json:"command"`
	RemoteAddress string          `json:"remote_address"`
	ConnectTime   string          `json:"connect_time"`
	Uses          []clientUseView `json:"uses"`
	Calls         int             `json:"calls"`
	CallsTotal    uint64          `json:"calls_total"`
	UserAgent     string          `json:"user_agent"`
}

type clientUseView struct {
	Method      string `json:"method"`
	Name        string `json:"name"`
	Since       string `json:"since"`
	Outstanding uint64 `json:"outstanding"`
	Behind      uint64 `json:"behind"`
}

func viewClient(c client.ClientConnection) any {
	v := clientView{
		ID: c.ID, Door: c.Door, Caller: viewCaller(c.Caller), Command: c.Command, RemoteAddress: c.RemoteAddress, ConnectTime: machineTime(c.ConnectedAt),
		Uses: make([]clientUseView, 0, len(c.Uses)), Calls: c.Calls, CallsTotal: c.CallsTotal, UserAgent: c.UserAgent,
	}
	for _, u := range c.Uses {
		v.Uses = append(v.Uses, clientUseView{Method: u.Method, Name: u.Name, Since: machineTime(u.Since), Outstanding: u.Outstanding, Behind: u.Behind})
	}
	return v
}

var clientColumns = []listColumn[client.ClientConnection]{
	number("id", func(c client.ClientConnection) uint64 { return c.ID }, natural),
	word("door", func(c client.ClientConnection) string { return escapeLine(c.Door) }),
	word("user", func(c client.ClientConnection) string { return callerText(c.Caller) }),
	{"pid", true, func(c client.ClientConnection) string {
		if c.Caller.PID == 0 {
			return "-"
		}
		return strconv.Itoa(c.Caller.PID)
	}, func(a, b client.ClientConnection) int { return cmp.Compare(a.Caller.PID, b.Caller.PID) }},
	word("command", func(c client.ClientConnection) string { return cmp.Or(escapeLine(c.Command), "-") }),
	{"since", false, func(c client.ClientConnection) string { return joinedText(c.ConnectedAt) },
		func(a, b client.ClientConnection) int { return b.ConnectedAt.Compare(a.ConnectedAt) }},
	number("calls", func(c client.ClientConnection) int { return c.Calls }, strconv.Itoa),
	number("total", func(c client.ClientConnection) uint64 { return c.CallsTotal }, natural),
	number("outstanding", func(c client.ClientConnection) uint64 {
		return sumOf(c.Uses, func(u client.ClientUse) uint64 { return u.Outstanding })
	}, natural),
	number("behind", func(c client.ClientConnection) uint64 {
		return maxOf(c.Uses, func(u client.ClientUse) uint64 { return u.Behind })
	}, natural),
	word("address", func(c client.ClientConnection) string { return cmp.Or(escapeLine(c.RemoteAddress), "-") }),
	word("agent", func(c client.ClientConnection) string { return cmp.Or(escapeLine(c.UserAgent), "-") }),
	word("uses", usesText),
}

// callerText names who is at the other end.
func callerText(c client.Caller) string {
	switch {
	case c.User && c.Name != "": // a certificate that acts as a user
		return userName(c.UID) + " (" + escapeLine(c.Name) + ")"
	case c.Name != "":
		return escapeLine(c.Name)
	case c.User:
		return userName(c.UID)
	}
	return escapeLine(c.Kind)
}

// usesText says in a line what a connection does: the same thing done several times is told once.
func usesText(c client.ClientConnection) string {
	var parts []string
	times := map[string]int{}
	for _, u := range c.Uses {
		part := escapeLine(u.Method) + " " + escapeLine(u.Name)
		if times[part]++; times[part] == 1 {
			parts = append(parts, part)
		}
	}
	for i, part := range parts {
		if n := times[part]; n > 1 {
			parts[i] = fmt.Sprintf("%s (%d times)", part, n)
		}
	}
	return cmp.Or(strings.Join(parts, ", "), "-")
}

func newClients(a *app) *cobra.Command {
	l := &listing[client.ClientConnection]{
		things:  "clients",
		columns: clientColumns,
		table:   []string{"id", "door", "user", "pid", "command", "since", "calls", "outstanding", "behind", "uses"},
		view:    viewClient,
		each:    clientsUsing,
	}
	cmd := &cobra.Command{
		Use:   "clients [GLOB]",
		Short: "List connections: who, which process, what it does, how far behind it is",
		Long: `List the connections to the daemon; with GLOB, those that do something with a queue or ring whose name matches
(quote it in a shell). Admins see all, others those of their own user.

Since tells how old the connection is; calls are those under way, total those that have ended. Uses names what the
connection does with queues and rings; outstanding are messages that Consume streams were given and have not settled
yet (those of single receives are the queue's, and ipcctl ls counts them as leased); behind is what waits for it: ready messages of the queue, or messages of the ring that it has not read, and the most of
these if it uses several. A connection's id is counted by its door, and is never used again while the daemon runs.`,
		Example: `  ipcctl clients
  ipcctl clients jobs --sort behind --reverse
  ipcctl clients -o wide --watch
  ipcctl clients -o json | jq '.clients[] | select(.caller.pid == 4711).uses'`,
		Args:              globArgs,
		RunE:              l.run(a),
		ValidArgsFunction: a.completeQueues(1),
	}
	l.add(cmd)
	return cmd
}

// clientsUsing lists connections; with a glob, those with uses of names that match, and only these uses.
func clientsUsing(ctx context.Context, c *client.Client, glob string) iter.Seq2[client.ClientConnection, error] {
	if glob == "" {
		return c.Clients(ctx)
	}
	return func(yield func(client.ClientConnection, error) bool) {
		for v, err := range c.Clients(ctx) {
			v.Uses = slices.DeleteFunc(v.Uses, func(u client.ClientUse) bool {
				match, _ := path.Match(glob, strings.TrimPrefix(u.Name, "/"))
				return !match
			})
			if (err != nil || len(v.Uses) > 0) && !yield(v, err) {
				return
			}
		}
	}
}
