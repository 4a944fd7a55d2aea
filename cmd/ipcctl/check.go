package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ipcd/ipcd/client"
)

// checkTimeout is how long check waits: less than monitoring systems wait for a plugin.
const checkTimeout = 10 * time.Second

// serviceState is what a monitoring plugin says, and its exit code.
type serviceState int

const (
	stateOK serviceState = iota
	stateWarning
	stateCritical
	stateUnknown
)

func (s serviceState) String() string {
	return [...]string{"OK", "WARNING", "CRITICAL", "UNKNOWN"}[s]
}

// worse returns the state to report of two: what is known to be wrong comes before what is not known.
func (s serviceState) worse(t serviceState) serviceState {
	rank := [...]int{stateOK: 0, stateUnknown: 1, stateWarning: 2, stateCritical: 3}
	if rank[t] > rank[s] {
		return t
	}
	return s
}

// checkName is the command's name, by which usage errors know what is expected of them.
const checkName = "check"

func newCheck(a *app) *cobra.Command {
	k := &checkFlags{}
	cmd := &cobra.Command{
		Use:   checkName + " [QUEUE-GLOB...]",
		Short: "Check the daemon for a monitoring system: exits 0, 1, 2 or 3",
		Long: `Check the daemon as a plugin of a monitoring system (Nagios, Icinga, Naemon, Sensu) does: one line with
IPCD and OK, WARNING, CRITICAL or UNKNOWN, then | and performance data; on further lines each thing that is wrong. The
exit code is 0, 1, 2 or 3, here and for no other command of ipcctl.

Always checked, and CRITICAL: that the daemon answers within --timeout (10s) and says that it is healthy, that its
disk is not full, that its journal is not damaged. UNKNOWN is what cannot be checked: a
mistake on the command line, no access, a pattern that matches nothing.

Thresholds are for each queue whose name matches one of the patterns (all without any) and each ring that --ring
matches (all without it), among those that you may look at. A value above a threshold counts, an equal one does not.
Depth is in ready messages, age that of the oldest ready one, lag that of a ring's slowest consumer in messages. Queues
and rings that are chosen by name have performance data of their own, if they are not too many.

The user of the monitoring system sees its own queues and rings, and those whose mode or a rule lets it look; the line
says how many that is. For all of them it needs a rule such as
  {queues: ["*"], rings: ["*"], users: [nagios], allow: [look]}`,
		Example: `  ipcctl check
  ipcctl check --depth-warning 1000 --depth-critical 10000 --age-critical 5m
  ipcctl check 'jobs*' mail --buried-warning 0
  ipcctl check --ring 'ticks*' --lag-warning 100000 --timeout 3s`,
		Args: globsArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			timeout := checkTimeout
			if cmd.Flags().Changed("timeout") {
				timeout = a.timeout
			}
			return a.check(cmd.Context(), k, args, timeout)
		},
		ValidArgsFunction: a.completeQueues(anyNumber),
	}
	k.add(cmd, a)
	return cmd
}

// check prints what it found, and returns the exit code.
func (a *app) check(ctx context.Context, k *checkFlags, globs []string, timeout time.Duration) error {
	limited := ctx
	if timeout > 0 {
		var cancel context.CancelFunc
		limited, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	var f findings
	if err := k.check(); err != nil {
		f.fail(err, timeout)
	} else if err := a.findings(limited, k, globs, &f); err != nil {
		f.fail(err, timeout)
	}
	if err := a.print(f.text()); err != nil {
		a.report(err, 0)
		return &failure{err: reported(stateUnknown)}
	}
	return &failure{err: reported(f.state)}
}

// misused tells a monitoring system that the command line is wrong.
func (a *app) misused(err error) int {
	var f findings
	f.fail(err, 0)
	_ = a.print(f.text()) // there is nobody else to tell
	return int(f.state)
}

// findings is what a check found.
type findings struct {
	state    serviceState
	problems []problem
	summary  string   // when all is well
	perfdata []string // label=value;warning;critical;minimum
}

type problem struct {
	state serviceState
	text  string
}

func (f *findings) add(s serviceState, format string, args ...any) {
	f.problems = append(f.problems, problem{s, plain(fmt.Sprintf(format, args...))})
	f.state = f.state.worse(s)
}

// fail adds what kept the check from going on.
func (f *findings) fail(err error, timeout time.Duration) {
	s := stateUnknown
	text := err.Error()
	var e *client.Error
	switch {
	case isTimeout(err):
		s, text = stateCritical, fmt.Sprintf("no answer within %v", timeout)
	case errors.Is(err, client.ErrUnreachable), errors.Is(err, client.ErrUnhealthy), errors.Is(err, client.ErrShuttingDown):
		s = stateCritical
	case errors.As(err, &e) && exitCode(err) == exitInternal:
		s = stateCritical
	}
	f.add(s, "%s", text)
}

// plain is text in which nothing acts on a terminal or parts the output.
func plain(s string) string { return strings.ReplaceAll(escapeLine(s), "|", `\x7c`) }

// text is what the plugin writes: a line for overviews, and one for each problem if there are several. At most
// listedMost of these are listed, since monitoring systems cut what is long.
func (f *findings) text() string {
	var b strings.Builder
	line := f.summary
	worst := f.worst()
	if len(worst) > 0 {
		line = worst[0].text
	}
	if n := len(f.problems); n > 1 {
		line = fmt.Sprintf("%d problems, such as: %s", n, line)
	}
	fmt.Fprintf(&b, "IPCD %v - %s", f.state, line)
	if len(f.perfdata) > 0 {
		b.WriteString(" | " + strings.Join(f.perfdata, " "))
	}
	b.WriteString("\n")
	if len(worst) > 1 {
		for i, p := range worst {
			if i == listedMost {
				fmt.Fprintf(&b, "and %d more\n", len(worst)-i)
				break
			}
			fmt.Fprintf(&b, "%v: %s\n", p.state, p.text)
		}
	}
	return b.String()
}

// worst returns the problems, the worst first.
func (f *findings) worst() []problem {
	var sorted []problem
	for _, s := range []serviceState{stateCritical, stateWarning, stateUnknown} {
		for _, p := range f.problems {
			if p.state == s {
				sorted = append(sorted, p)
			}
		}
	}
	return sorted
}

// perf adds performance data: a label may have anything in it but an equals sign; quotes are doubled.
func (f *findings) perf(label string, value, unit string, warning, critical string) {
	label = strings.NewReplacer("'", "''", "=", "_").Replace(plain(label))
	f.perfdata = append(f.perfdata, fmt.Sprintf("'%s'=%s%s;%s;%s;0", label, value, unit, warning, critical))
}

// findings asks the daemon.
func (a *app) findings(ctx context.Context, k *checkFlags, globs []string, f *findings) error {
	c, err := a.dial()
	if err != nil {
		return err
	}
	if err := c.CheckHealth(ctx); err != nil {
		return err
	}
	info, err := c.Info(ctx)
	if err != nil {
		return err
	}
	f.summary = fmt.Sprintf("%s, %s, %s, up %s", count(info.Queues, "queue"), count(info.Messages, "message"), count(info.Rings, "ring"),
		humanDuration(max(0, time.Since(info.StartedAt))))
	for _, p := range []struct {
		label string
		value int64
		unit  string
	}{{"queues", info.Queues, ""}, {"messages", info.Messages, ""}, {"bytes", info.Bytes, "B"}, {"rings", info.Rings, ""},
		{"ring_memory", info.RingMemoryBytes, "B"}, {"journal_disk", info.Storage.DiskBytes, "B"}} {
		f.perf(p.label, decimal(p.value), p.unit, "", "")
	}
	if info.Storage.Full {
		f.add(stateCritical, "the journal's disk is full: sends are refused until there is room")
	}
	if st := info.Storage; st.Damaged > 0 {
		names := strings.Join(st.DamagedQueues[:min(len(st.DamagedQueues), listedMost)], " ")
		f.add(stateCritical, "%s", strings.TrimSpace(fmt.Sprintf("the journal is damaged: %s read-only %s", count(st.Damaged, "queue"), names)))
	} else if st.Damage != "" {
		f.add(stateCritical, "the journal is damaged: %s", st.Damage)
	}
	if len(globs) > 0 || k.queues() {
		if err := k.checkQueues(ctx, c, globs, info.Queues, f); err != nil {
			return err
		}
	}
	if len(k.rings) > 0 || k.lag.given() {
		return k.checkRings(ctx, c, info.Rings, f)
	}
	return nil
}
