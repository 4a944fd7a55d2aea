package main

import (
	"bytes"
	"context"
	"path"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/ipcd/ipcd/client"
	"github.com/ipcd/ipcd/internal/reason"
)

// atOnce is how many objects a command works on at the same time: enough for one commit of the journal to serve several.
const atOnce = 16

// isGlob reports whether a word is a pattern. No name has these characters.
func isGlob(arg string) bool { return strings.ContainsAny(arg, `*?[\`) }

// queuesArgs wants at least one name or pattern of queues.
func queuesArgs(cmd *cobra.Command, args []string) error {
	if err := queueArgs(1, anyNumber)(cmd, args); err != nil {
		return err
	}
	for _, arg := range args {
		if _, err := path.Match(arg, ""); err != nil {
			return badPattern(arg)
		}
	}
	return nil
}

func badPattern(arg string) error {
	return usagef("%s is no pattern: write * for any text, ? for one character, [a-z] for some", quoteArg(arg))
}

// named are the queues that the words of a command line name.
type named struct {
	names []string                    // each once, in the order of the words
	infos map[string]client.QueueInfo // of those that were found by a pattern
}

// globbed reports whether a pattern was among the words.
func (n *named) globbed() bool { return n.infos != nil }

// messagesOf tells how many messages the queues have.
func (a *app) messagesOf(ctx context.Context, n *named) (sum int64, err error) {
	c, err := a.dial()
	if err != nil {
		return 0, err
	}
	for _, name := range n.names {
		info, known := n.infos[name]
		if !known {
			if info, err = c.GetQueue(ctx, name); err != nil {
				return 0, err
			}
		}
		sum += info.Stats.Messages()
	}
	return sum, nil
}

// named asks for the queues that match the patterns among the words; other words are names.
func (a *app) named(ctx context.Context, args []string) (*named, error) {
	n := new(named)
	seen := map[string]bool{}
	add := func(name string) {
		if !seen[name] {
			seen[name] = true
			n.names = append(n.names, name)
		}
	}
	for _, arg := range args {
		if !isGlob(arg) {
			add(queueName(arg))
			continue
		}
		c, err := a.dial()
		if err != nil {
			return nil, err
		}
		if n.infos == nil {
			n.infos = map[string]client.QueueInfo{}
		}
		found := false
		for info, err := range c.Queues(ctx, strings.TrimPrefix(arg, "/")) {
			if err != nil {
				return nil, err
			}
			found = true
			n.infos[info.Name] = info
			add(info.Name)
		}
		if !found {
			return nil, &client.Error{Reason: string(reason.QueueNotFound), Index: client.Whole,
				Message: "no queue that you may look at matches " + quoteArg(arg)}
		}
	}
	return n, nil
}

// patternHelp is the part of a command's help about words that name several queues.
const patternHelp = "A pattern such as 'jobs.*', quoted, means all queues that match it and that you may look at."

// eachNamed does something with each queue that the words of a command line name.
func (a *app) eachNamed(ctx context.Context, args []string, do func(ctx context.Context, a *app, name string) error) error {
	n, err := a.named(ctx, args)
	if err != nil {
		return err
	}
	return a.eachAtOnce(ctx, n.names, do)
}

// eachAsked is eachAtOnce, but one after the other where a question may have to be asked about each.
func (a *app) eachAsked(ctx context.Context, names []string, answered bool, do func(ctx context.Context, a *app, name string) error) error {
	if answered {
		return a.eachAtOnce(ctx, names, do)
	}
	return a.each(ctx, names, func(name string) error { return do(ctx, a, name) })
}

// piece is what one of several objects left behind.
type piece struct {
	out, err bytes.Buffer
	failed   error
}

// eachAtOnce does something with each of several objects, some at a time, and tells what came of them in their order. do
// gets an app of its own, which holds back what it prints. It goes on after a failure, and returns the worst.
func (a *app) eachAtOnce(ctx context.Context, names []string, do func(ctx context.Context, a *app, name string) error) error {
	if len(names) == 1 {
		return do(ctx, a, names[0])
	}
	if _, err := a.dial(); err != nil { // once, for all
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	var workers sync.WaitGroup
	defer workers.Wait()
	defer stop()
	done := make([]chan *piece, len(names))
	for i := range done {
		done[i] = make(chan *piece, 1)
	}
	turns := make(chan int)
	workers.Go(func() {
		defer close(turns)
		for i := range names {
			select {
			case turns <- i:
			case <-ctx.Done():
				return
			}
		}
	})
	for range min(atOnce, len(names)) {
		workers.Go(func() {
			for i := range turns {
				p := new(piece)
				alone := *a
				alone.out, alone.err, alone.eTTY = &p.out, &p.err, false
				p.failed = do(ctx, &alone, names[i])
				done[i] <- p
			}
		})
	}
	progress := a.newProgress()
	defer progress.clear()
	worst := 0
	for i := range done {
		var p *piece
		select {
		case p = <-done[i]:
		case <-ctx.Done():
			return ctx.Err()
		}
		if p.failed != nil && ctx.Err() != nil {
			return p.failed
		}
		progress.clear()
		if _, err := a.err.Write(p.err.Bytes()); err != nil {
			return err
		}
		if err := a.print(p.out.String()); err != nil {
			return err
		}
		if p.failed != nil {
			a.report(p.failed, 0)
			worst = max(worst, exitCode(p.failed))
		}
		progress.show("%d of %s …", i+1, count(len(names), "queue"))
	}
	if worst > 0 {
		return reported(worst)
	}
	return nil
}
