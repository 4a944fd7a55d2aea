package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ipcd/ipcd/broker"
	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/limits"
)

func newPeek() *cobra.Command {
	var state stateFlag
	output := outputFlag{words: []string{"text", "json", "raw"}, word: "text"}
	states := statesFlag{states: allStates[:1]}
	number := countFlag{n: 10}
	var only typeFlag
	c := &cobra.Command{
		Use:   "peek QUEUE",
		Short: "look at the messages of a state directory, without a daemon",
		Long: `Look at messages as the journal of a state directory has them. Nothing is written, and no daemon may run on
the directory meanwhile (ipcctl peek asks one that runs).

Ready messages come in the order in which they would be received, delayed ones by due time, leased ones by
deadline, buried ones by sequence. The text output shows control bytes as \x1b and the like, and the beginning
of long bodies; raw is the bodies alone, each with a newline. Where the queue has a schema, text and json show
bodies decoded.`,
		Example: `  ipcd peek /jobs
  ipcd peek jobs --state all --type failed -n 0
  ipcd peek /jobs --state-dir /srv/copy-of-ipcd -o json | jq '.messages[].body'`,
		Args: queueArgument,
		RunE: func(c *cobra.Command, args []string) error {
			dir, err := state.path(c)
			if err != nil {
				return err
			}
			name := "/" + strings.TrimPrefix(args[0], "/")
			if err := queue.CheckName(name); err != nil {
				return usageError{err}
			}
			found, done, err := inspect(c, dir, "reading", false)
			if err != nil {
				return err
			}
			defer done()
			names := typeNames(found, name)
			selector, err := only.selector(names)
			if err != nil {
				return err
			}
			p := messagePrinter{w: c.OutOrStdout(), output: output.word, queue: name, types: byNumber(names), decoder: decoderOf(found, name)}
			request := broker.PeekRequest{Queue: name, Filter: queue.Filter{Selector: selector, States: states.states}, MaxBody: p.maxBody()}
			if err := peek(c, found, request, number.n, &p); err != nil {
				return err
			}
			return damageOf(found, "what is shown is what is left; ipcd fsck says more")
		},
	}
	state.add(c)
	output.add(c)
	c.Flags().VarP(&number, "number", "n", "at most so many messages, 0 for all")
	c.Flags().Var(&states, "state", "ready, delayed, leased, buried or all")
	c.Flags().Var(&only, "type", "only the types in SEL: 7, upto:7, not:7, 1,2,3 or the queue's names")
	return c
}

// typeNames are a queue's names for types; none if there is no such queue.
func typeNames(found *broker.Inspection, name string) map[string]int64 {
	for i := range found.Queues {
		if found.Queues[i].Name == name {
			return found.Queues[i].Settings.TypeNames
		}
	}
	return nil
}

// byNumber turns names around.
func byNumber(names map[string]int64) map[int64]string {
	types := make(map[int64]string, len(names))
	for name, t := range names {
		types[t] = name
	}
	return types
}

// peek prints up to most messages, all if that is 0.
func peek(c *cobra.Command, found *broker.Inspection, r broker.PeekRequest, most int, p *messagePrinter) error {
	printed := 0
	for more := true; more && (most == 0 || printed < most); {
		r.Max = limits.PeekPage
		if most > 0 {
			r.Max = min(r.Max, most-printed)
		}
		page, err := found.Peek(c.Context(), r)
		if err != nil {
			return err
		}
		for i := range page.Messages {
			if err := p.print(&page.Messages[i]); err != nil {
				return err
			}
		}
		printed += len(page.Messages)
		r.Cursor, more = page.Cursor, page.Cursor != ""
	}
	if printed == 0 {
		fmt.Fprintf(c.ErrOrStderr(), "no such messages in %s\n", r.Queue)
	}
	return p.end()
}
