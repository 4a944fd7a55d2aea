package main

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ipcd/ipcd/client"
)

// listedMost is of how many queues or rings check gives performance data, and how many problems it lists.
const listedMost = 50

// threshold is above which value there is a warning, and above which it is critical; nil: never.
type threshold[T int64 | time.Duration] struct{ warning, critical *T }

func (t *threshold[T]) given() bool { return t.warning != nil || t.critical != nil }

// judge returns what a value means, and the threshold that it is above.
func (t *threshold[T]) judge(v T) (serviceState, T) {
	switch {
	case t.critical != nil && v > *t.critical:
		return stateCritical, *t.critical
	case t.warning != nil && v > *t.warning:
		return stateWarning, *t.warning
	}
	return stateOK, 0
}

// addThreshold adds --NAME-warning and --NAME-critical.
func addThreshold[T int64 | time.Duration](cmd *cobra.Command, t *threshold[T], name, kind, what string, parse func(string) (T, error)) {
	addFlag(cmd.Flags(), &t.warning, name+"-warning", kind, "warn "+what, pointer(parse))
	addFlag(cmd.Flags(), &t.critical, name+"-critical", kind, "CRITICAL "+what, pointer(parse))
}

// checkFlags are the flags of check.
type checkFlags struct {
	depth, buried, lag threshold[int64]
	age                threshold[time.Duration]
	rings              []string // patterns
}

func (k *checkFlags) add(cmd *cobra.Command, a *app) {
	parse := limited[int64](parseCount)
	addThreshold(cmd, &k.depth, "depth", "N", "where a queue has more ready messages", parse)
	addThreshold(cmd, &k.age, "age", "DURATION", "where a queue's oldest ready message is older", parseDuration)
	addThreshold(cmd, &k.buried, "buried", "N", "where a queue has more buried messages", parse)
	addThreshold(cmd, &k.lag, "lag", "N", "where a ring's consumer is more messages behind", parse)
	addList(cmd.Flags(), &k.rings, "ring", "GLOB", "rings that --lag-… are for (repeat for more; default all)", func(s string) (string, error) {
		if !isPattern(s) {
			return "", fmt.Errorf("%s is no pattern: write * for any text, ? for one character, [a-z] for some", quoteArg(s))
		}
		return s, nil
	})
	cmd.Flags().SortFlags = false
	complete(cmd, "ring", func(cmd *cobra.Command, _ []string, begin string) ([]string, cobra.ShellCompDirective) {
		return a.completeRings(1)(cmd, nil, begin)
	})
}

func isPattern(s string) bool {
	_, err := path.Match(s, "")
	return err == nil
}

// globsArgs wants patterns.
func globsArgs(_ *cobra.Command, args []string) error {
	for _, arg := range args {
		if !isPattern(arg) {
			return usagef("%s is no pattern: write * for any text, ? for one character, [a-z] for some", quoteArg(arg))
		}
	}
	return nil
}

// queues reports whether there is a threshold for queues.
func (k *checkFlags) queues() bool { return k.depth.given() || k.age.given() || k.buried.given() }

// check says whether the thresholds make sense together.
func (k *checkFlags) check() error {
	wrong := func(name string, t *threshold[int64]) error {
		if t.warning != nil && t.critical != nil && *t.warning > *t.critical {
			return usagef("--%s-warning %d is above --%[1]s-critical %[3]d: it would never be seen", name, *t.warning, *t.critical)
		}
		return nil
	}
	for _, err := range []error{wrong("depth", &k.depth), wrong("buried", &k.buried), wrong("lag", &k.lag)} {
		if err != nil {
			return err
		}
	}
	if k.age.warning != nil && k.age.critical != nil && *k.age.warning > *k.age.critical {
		return usagef("--age-warning %v is above --age-critical %v: it would never be seen", *k.age.warning, *k.age.critical)
	}
	return nil
}

// chosen says which of some patterns match, and keeps account of which never did.
type chosen struct {
	globs []string
	used  map[string]bool
}

func newChosen(globs []string) *chosen { return &chosen{globs, map[string]bool{}} }

func (c *chosen) matches(name string) bool {
	found := len(c.globs) == 0
	for _, glob := range c.globs {
		if match, _ := path.Match(strings.TrimPrefix(glob, "/"), strings.TrimPrefix(name, "/")); match {
			found, c.used[glob] = true, true
		}
	}
	return found
}

// missing adds a problem for each pattern that matched nothing: what is watched should be there.
func (c *chosen) missing(f *findings, thing string) {
	for _, glob := range slices.Compact(c.globs) {
		if !c.used[glob] {
			f.add(stateUnknown, "no %s that you may look at matches %s", thing, quoteArg(glob))
		}
	}
}

// looked says how many of all queues or rings the caller may look at. That it is none is no reason to be content.
func looked(f *findings, seen, all int64, thing string) {
	if seen == 0 && all > 0 {
		f.add(stateUnknown, "you may look at none of %s: see ipcctl check --help", count(all, thing))
		return
	}
	f.summary += fmt.Sprintf("; looked at %d of %s", seen, count(all, thing))
}

func (k *checkFlags) checkQueues(ctx context.Context, c *client.Client, globs []string, all int64, f *findings) error {
	which, listed, seen := newChosen(globs), 0, int64(0)
	for q, err := range c.Queues(ctx, "") {
		if err != nil {
			return err
		}
		seen++
		if !which.matches(q.Name) {
			continue
		}
		st := q.Stats
		if s, most := k.depth.judge(st.Ready); s != stateOK {
			f.add(s, "%s: %d ready, more than %d", q.Name, st.Ready, most)
		}
		if s, most := k.age.judge(st.OldestAge); s != stateOK {
			f.add(s, "%s: the oldest ready message is %s old, more than %v", q.Name, humanDuration(st.OldestAge), most)
		}
		if s, most := k.buried.judge(st.Buried); s != stateOK {
			f.add(s, "%s: %d buried, more than %d", q.Name, st.Buried, most)
		}
		if listed++; len(globs) > 0 && listed <= listedMost {
			f.perf(q.Name+" ready", decimal(st.Ready), "", bound(k.depth.warning), bound(k.depth.critical))
			f.perf(q.Name+" oldest", seconds(max(0, st.OldestAge)), "s", boundSeconds(k.age.warning), boundSeconds(k.age.critical))
			f.perf(q.Name+" buried", decimal(st.Buried), "", bound(k.buried.warning), bound(k.buried.critical))
		}
	}
	which.missing(f, "queue")
	looked(f, seen, max(seen, all), "queue")
	return nil
}

func (k *checkFlags) checkRings(ctx context.Context, c *client.Client, all int64, f *findings) error {
	which, listed, seen := newChosen(k.rings), 0, int64(0)
	for r, err := range c.Rings(ctx, "") {
		if err != nil {
			return err
		}
		seen++
		if !which.matches(r.Name) {
			continue
		}
		lag := count64(maxOf(r.Consumers, func(c client.RingConsumer) uint64 { return c.LagMessages }))
		if s, most := k.lag.judge(lag); s != stateOK {
			f.add(s, "ring %s: a consumer is %d messages behind, more than %d", r.Name, lag, most)
		}
		if listed++; len(k.rings) > 0 && listed <= listedMost {
			f.perf("ring "+r.Name+" lag", decimal(lag), "", bound(k.lag.warning), bound(k.lag.critical))
		}
	}
	which.missing(f, "ring")
	looked(f, seen, max(seen, all), "ring")
	return nil
}

func count64(n uint64) int64 { return int64(min(n, uint64(client.Unlimited))) }

// bound is a threshold in performance data; "": none.
func bound(t *int64) string {
	if t == nil {
		return ""
	}
	return decimal(*t)
}

func boundSeconds(t *time.Duration) string {
	if t == nil {
		return ""
	}
	return seconds(*t)
}

func seconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) }
