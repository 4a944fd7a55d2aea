package main

import (
	"bufio"
	"context"
	"fmt"
	"strings"
	"time"
)

// What is done only on a terminal: colour, redrawing, progress, questions.

func (a *app) bold(s string) string { return a.style("1", s) }
func (a *app) dim(s string) string  { return a.style("2", s) }

// style wraps s in an SGR sequence (ECMA-48) where colour is wanted.
func (a *app) style(sgr, s string) string {
	if !a.color || s == "" {
		return s
	}
	return "\x1b[" + sgr + "m" + s + "\x1b[0m"
}

// watch shows a text again and again until it is interrupted: redrawn in place on a terminal, one after
// the other elsewhere. A daemon that goes away ends it.
func (a *app) watch(ctx context.Context, interval time.Duration, text func() (string, error)) error {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for first := true; ; first = false {
		s, err := text()
		if ctx.Err() == context.Canceled {
			return nil
		}
		if err != nil {
			return err
		}
		switch {
		case a.outTTY:
			s = a.redrawn(s)
		case !first:
			s = "\n" + s
		}
		if err := a.print(s); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			if ctx.Err() == context.Canceled {
				return nil
			}
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

// redrawn makes s take the place of what was on the terminal: from the top, each line cleared to its
// end, what is below cleared too; no more lines than there are.
func (a *app) redrawn(s string) string {
	lines := strings.Split(strings.TrimSuffix(s, "\n"), "\n")
	if _, rows := a.size(); rows > 2 && len(lines) > rows-1 {
		more := len(lines) - (rows - 2)
		lines = append(lines[:rows-2:rows-2], a.dim(fmt.Sprintf("… %d more lines", more)))
	}
	return "\x1b[H" + strings.Join(lines, "\x1b[K\n") + "\x1b[K\n\x1b[J"
}

// progress shows on a terminal how far long work has come; elsewhere it shows nothing.
type progress struct {
	a     *app
	next  time.Time // when to show again
	shown bool
}

const progressEvery = 200 * time.Millisecond

func (a *app) newProgress() *progress {
	return &progress{a: a, next: time.Now().Add(progressEvery)}
}

func (p *progress) show(format string, args ...any) {
	if !p.a.eTTY {
		return
	}
	now := time.Now()
	if now.Before(p.next) {
		return
	}
	p.next = now.Add(progressEvery)
	p.shown = true
	fmt.Fprintf(p.a.err, "\r"+format+"\x1b[K", args...)
}

// clear takes the line away, so that what follows stands in its place.
func (p *progress) clear() {
	if p.shown {
		fmt.Fprint(p.a.err, "\r\x1b[K")
		p.shown = false
	}
}

// confirm asks a question on a terminal. Elsewhere it refuses and says that --force is needed.
func (a *app) confirm(ctx context.Context, force bool, what string) error {
	if force {
		return nil
	}
	if !a.inTTY || !a.eTTY {
		return usagef("refusing to %s without --force, for there is no terminal to ask on", what)
	}
	fmt.Fprintf(a.err, "%s%s? [y/N] ", strings.ToUpper(what[:1]), what[1:])
	answer := make(chan string, 1)
	go func() { // a read from a terminal cannot be interrupted; the process ends soon
		line, _ := bufio.NewReader(a.in).ReadString('\n')
		answer <- line
	}()
	select {
	case <-ctx.Done():
		fmt.Fprintln(a.err)
		return ctx.Err()
	case line := <-answer:
		switch strings.ToLower(strings.TrimSpace(line)) {
		case "y", "yes":
			return nil
		}
		a.say("left alone")
		return reported(exitFailure)
	}
}
