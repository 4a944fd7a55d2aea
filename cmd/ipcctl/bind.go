package main

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ipcd/ipcd/client"
)

func newBind(a *app) *cobra.Command {
	var selector string
	var o client.BindOptions
	cmd := &cobra.Command{
		Use:   "bind SOURCE DESTINATION",
		Short: "Store what is sent to a queue in another one too",
		Long: `Store a copy of what is sent to a queue from now on in another one too, in the same step: both have it, or neither.
The destination hands on what it gets in turn; one that is reached by several ways gets one copy. A bind that is there is
changed. Dead letters, and messages that are moved or imported, are not handed on.

Where the destination cannot take its copy, because it is full for instance, the send is refused, or with --overflow skip
the destination goes without, which ipcctl binds counts.`,
		Example: `  ipcctl bind /events /audit
  ipcctl bind /events /failures --type failed
  ipcctl bind /events /dashboard --overflow skip`,
		Args: twoQueues,
		RunE: a.short(func(ctx context.Context, _ *cobra.Command, args []string) error {
			c, err := a.dial()
			if err != nil {
				return err
			}
			source, destination := queueName(args[0]), queueName(args[1])
			if o.Selector, err = resolveSelector(ctx, c, source, selector); err != nil {
				return err
			}
			info, err := c.Queue(source).Bind(ctx, destination, o)
			if err != nil {
				return err
			}
			a.say("%s hands %s on to %s", source, selectorText(o.Selector, typeNamesByNumber(info.Settings.TypeNames), "everything"), destination)
			return nil
		}),
		ValidArgsFunction: a.completeQueues(2),
	}
	addSelector(cmd, a, &selector, "only the types in SEL: 7, upto:7, not:7, 1,2,3 or the source's names (default: everything)")
	words := []string{"refuse", "skip"}
	addFlag(cmd.Flags(), &o.Skip, "overflow", "WHAT", "where the destination cannot take its copy: refuse the send (default), or skip the copy",
		oneOf("way out", words, false, true))
	completeWords(cmd, "overflow", words)
	return cmd
}

func newUnbind(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "unbind SOURCE DESTINATION",
		Short:   "End a bind",
		Long:    "End a bind: what is sent to the source from now on is not stored in the destination any more. What is there stays.",
		Example: "  ipcctl unbind /events /audit",
		Args:    twoQueues,
		RunE: a.short(func(ctx context.Context, _ *cobra.Command, args []string) error {
			c, err := a.dial()
			if err != nil {
				return err
			}
			source, destination := queueName(args[0]), queueName(args[1])
			before, err := c.GetQueue(ctx, source)
			if err == nil && !hasBind(before, destination) {
				a.say("there was no bind of %s to %s: nothing was changed", source, destination)
				return nil
			}
			if _, err := c.Queue(source).Unbind(ctx, destination); err != nil {
				return err
			}
			a.say("%s hands nothing on to %s any more", source, destination)
			return nil
		}),
		ValidArgsFunction: a.completeQueues(2),
	}
}

func hasBind(q client.QueueInfo, destination string) bool {
	for _, b := range q.Settings.Binds {
		if b.Destination == destination {
			return true
		}
	}
	return false
}

// bind is one bind of a queue, and how it fares.
type bind struct {
	source string
	names  map[int64]string // of the source's types
	client.Bind
	client.BindStatus
}

// bindsOf returns a queue's binds.
func bindsOf(q client.QueueInfo) []bind {
	names := typeNamesByNumber(q.Settings.TypeNames)
	binds := make([]bind, len(q.Settings.Binds))
	for i, b := range q.Settings.Binds {
		binds[i] = bind{source: q.Name, names: names, Bind: b}
		for _, status := range q.Binds {
			if status.Destination == b.Destination {
				binds[i].BindStatus = status
			}
		}
	}
	return binds
}

func (b *bind) to() string { return b.Bind.Destination }

func (b *bind) overflow() string {
	if b.Skip {
		return "skip"
	}
	return "refuse"
}

// text says for people what is handed on, and how it fares.
func (b *bind) text() string {
	text := selectorText(b.Selector, b.names, "everything")
	if b.Skip {
		text += ", skipped where it finds no room"
	}
	text += fmt.Sprintf("; %d copied, %d skipped", b.CopiedTotal, b.SkippedTotal)
	if b.Problem != "" {
		text += ", the last because: " + escapeLine(b.Problem)
	}
	return text
}

// bindView is a bind as json and yaml show it.
type bindView struct {
	Source       string `json:"source,omitempty"` // where binds of several queues are listed
	Destination  string `json:"destination"`
	Selector     string `json:"selector"`
	Types        string `json:"selector_names,omitempty"` // the selector with the source's names for types, if it has any
	Overflow     string `json:"overflow"`
	CopiedTotal  int64  `json:"copied_total"`
	SkippedTotal int64  `json:"skipped_total"`
	Problem      string `json:"problem,omitempty"`
}

func viewBind(b bind) bindView {
	v := bindView{
		Source: b.source, Destination: b.to(), Selector: b.Selector.String(), Overflow: b.overflow(),
		CopiedTotal: b.CopiedTotal, SkippedTotal: b.SkippedTotal, Problem: b.Problem,
	}
	if named := selectorText(b.Selector, b.names, v.Selector); named != v.Selector {
		v.Types = named
	}
	return v
}

func newBinds(a *app) *cobra.Command {
	l := &listing[bind]{
		things: "binds",
		columns: []listColumn[bind]{
			word("source", func(b bind) string { return escapeLine(b.source) }),
			word("destination", func(b bind) string { return escapeLine(b.to()) }),
			word("types", func(b bind) string { return selectorText(b.Selector, b.names, "any") }),
			word("overflow", func(b bind) string { return b.overflow() }),
			number("copied", func(b bind) int64 { return b.CopiedTotal }, decimal),
			number("skipped", func(b bind) int64 { return b.SkippedTotal }, decimal),
			word("problem", func(b bind) string { return cmp.Or(escapeLine(b.Problem), "-") }),
		},
		table: []string{"source", "destination", "types", "overflow", "copied", "skipped", "problem"},
		view:  func(b bind) any { return viewBind(b) },
		each: func(ctx context.Context, c *client.Client, glob string) iter.Seq2[bind, error] {
			return func(yield func(bind, error) bool) {
				for q, err := range c.Queues(ctx, glob) {
					if err != nil {
						yield(bind{}, err)
						return
					}
					for _, b := range bindsOf(q) {
						if !yield(b, nil) {
							return
						}
					}
				}
			}
		},
	}
	cmd := &cobra.Command{
		Use:   "binds [GLOB]",
		Short: "List binds: which queues hand on what to which, and how it fares",
		Long: `List the binds of the queues that you may look at, and whose names match GLOB if one is given (quote it in a shell).

Copied and skipped count copies since the daemon started; problem is why the last one was skipped.`,
		Example: `  ipcctl binds
  ipcctl binds 'events*' --sort skipped --reverse
  ipcctl binds -o json | jq '.binds[] | select(.skipped_total > 0)'`,
		Args:              globArgs,
		RunE:              l.run(a),
		ValidArgsFunction: a.completeQueues(1),
	}
	l.add(cmd)
	return cmd
}

// bindsText lists where a queue's binds go, and says so where copies are skipped.
func bindsText(q client.QueueInfo) string {
	var parts []string
	for _, b := range bindsOf(q) {
		text := escapeLine(b.to())
		if b.SkippedTotal > 0 {
			text += fmt.Sprintf(" (%d skipped)", b.SkippedTotal)
		}
		parts = append(parts, text)
	}
	return cmp.Or(strings.Join(parts, ","), "-")
}

// schemaText is the current version of a queue's schema.
func schemaText(q client.QueueInfo) string {
	if q.SchemaVersion == 0 {
		return "-"
	}
	return fmt.Sprintf("v%d", q.SchemaVersion)
}

// typeText is a type as people read it: its name and number, or its number alone.
func typeText(t int64, names map[int64]string) string {
	if name := names[t]; name != "" {
		return fmt.Sprintf("%s (%d)", escapeLine(name), t)
	}
	return strconv.FormatInt(t, 10)
}

// selectorText is a selector with the names of the types, for people; anything is what one that selects any is called.
func selectorText(s client.Selector, names map[int64]string, anything string) string {
	if s.Kind() == client.SelectAny {
		return anything
	}
	var parts []string
	for _, t := range s.Types() {
		parts = append(parts, cmp.Or(escapeLine(names[t]), strconv.FormatInt(t, 10)))
	}
	text := strings.Join(parts, ",")
	switch s.Kind() {
	case client.SelectUpTo:
		return "upto:" + text
	case client.SelectNot:
		return "not:" + text
	}
	return text
}
