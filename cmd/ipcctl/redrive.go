package main

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/ipcd/ipcd/client"
)

// redriven is what went back from one queue to another.
type redriven struct {
	from string
	client.Redriven
}

// redrivenView is that as json and yaml show it.
type redrivenView struct {
	Queue    string `json:"queue"`  // where the dead letters are
	Origin   string `json:"origin"` // where they came from
	Messages int64  `json:"messages"`
	Reason   string `json:"reason,omitempty"` // why the rest stayed
	Error    string `json:"error,omitempty"`
}

func viewRedriven(r redriven) any {
	v := redrivenView{Queue: r.from, Origin: r.Queue, Messages: r.Messages}
	var e *client.Error
	if errors.As(r.Err, &e) {
		v.Reason, v.Error = e.Reason, e.Message
	} else if r.Err != nil {
		v.Error = r.Err.Error()
	}
	return v
}

var redrivenColumns = []listColumn[redriven]{
	word("queue", func(r redriven) string { return escapeLine(r.from) }),
	word("origin", func(r redriven) string { return escapeLine(r.Queue) }),
	number("messages", func(r redriven) int64 { return r.Messages }, decimal),
	word("problem", func(r redriven) string {
		if r.Err == nil {
			return "-"
		}
		return escapeLine(viewRedriven(r).(redrivenView).Error)
	}),
}

func newRedrive(a *app) *cobra.Command {
	var f filterFlags
	var dryRun bool
	var limit int64
	var output string
	cmd := &cobra.Command{
		Use:   "redrive QUEUE...",
		Short: "Move dead letters back, each to the queue it came from",
		Long: `Move dead letters back, each to the queue it came from, which its header ipcd-dead-queue names: all of them, or those
that the filters leave. It goes back only to a queue whose dead-letter queue is this one. The headers that tell of its death
go, its attempts start anew, and it becomes ready. A table says how many went where. What cannot go back, because its queue is
full, gone, or has another dead-letter queue by now, stays, and the table says why.

` + patternHelp,
		Example: `  ipcctl redrive /jobs.dead
  ipcctl redrive /jobs.dead --header ipcd-dead-queue=/jobs --limit 1
  ipcctl redrive '*.dead' --older-than 1h --dry-run
  ipcctl redrive /jobs.dead --type failed -o json`,
		Args: queuesArgs,
		RunE: a.long(func(ctx context.Context, _ *cobra.Command, args []string) error {
			return a.redrive(ctx, args, &f, limit, dryRun, output)
		}),
		ValidArgsFunction: a.completeQueues(anyNumber),
	}
	f.add(cmd, a)
	f.addStates(cmd, "only these states: ready,delayed,buried (default), leased or all")
	addFlag(cmd.Flags(), &limit, "limit", "N", "at most so many messages of each queue (default all)", positive[int64](parseCount))
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only count what would go back")
	addOutput(cmd, &output, "table", "json", "yaml")
	return cmd
}

func (a *app) redrive(ctx context.Context, args []string, f *filterFlags, limit int64, dryRun bool, output string) error {
	var mu sync.Mutex
	var all []redriven
	failed := a.eachNamed(ctx, args, func(ctx context.Context, a *app, name string) error {
		c, err := a.dial()
		if err != nil {
			return err
		}
		filter, err := f.filter(ctx, c, name)
		if err != nil {
			return err
		}
		back, err := c.Queue(name).Redrive(ctx, client.RedriveOptions{Filter: filter, Limit: limit, DryRun: dryRun})
		mu.Lock()
		defer mu.Unlock()
		for _, r := range back {
			all = append(all, redriven{name, r})
		}
		return err
	})
	if len(all) == 0 && failed != nil {
		return failed
	}
	slices.SortStableFunc(all, func(x, y redriven) int { return strings.Compare(x.from, y.from) })
	var b bytes.Buffer
	switch {
	case output != "table":
		if err := writeList(&b, output, "redriven", all, viewRedriven); err != nil {
			return err
		}
	case len(all) > 0:
		width, _ := a.size()
		writeColumns(&b, a, redrivenColumns, all, true, width)
	}
	if err := a.print(b.String()); err != nil {
		return err
	}
	var sum int64
	worst := exitCode(failed)
	for _, r := range all {
		sum += r.Messages
		worst = max(worst, exitCode(r.Err))
	}
	if dryRun {
		a.say("would move %s back", count(sum, "message"))
	} else {
		a.say("moved %s back", count(sum, "message"))
	}
	if failed != nil {
		a.report(failed, 0)
	}
	if worst > 0 {
		return reported(worst)
	}
	return nil
}
