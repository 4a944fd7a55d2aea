package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/client"
)

// outputFlag is -o: one of some words.
type outputFlag struct {
	words []string
	word  string
}

func (f *outputFlag) add(c *cobra.Command) {
	c.Flags().VarP(f, "output", "o", strings.Join(f.words, "|"))
}

// Set reads the flag's value.
func (f *outputFlag) Set(s string) error {
	if !slices.Contains(f.words, s) {
		return fmt.Errorf("%.40q: it may be %s", s, strings.Join(f.words, ", "))
	}
	f.word = s
	return nil
}

// String is the flag's value.
func (f *outputFlag) String() string { return f.word }

// Type is what the help calls it.
func (f *outputFlag) Type() string { return "FORMAT" }

// statesFlag is --state: states of messages, or all.
type statesFlag struct{ states []queue.State }

var allStates = []queue.State{queue.Ready, queue.Delayed, queue.Leased, queue.Buried}

// Set reads the flag's value.
func (f *statesFlag) Set(s string) error {
	if s == "all" {
		f.states = allStates
		return nil
	}
	at := slices.IndexFunc(allStates, func(state queue.State) bool { return state.String() == s })
	if at < 0 {
		return fmt.Errorf("%.40q: it may be ready, delayed, leased, buried or all", s)
	}
	f.states = allStates[at : at+1]
	return nil
}

// String is the flag's value.
func (f *statesFlag) String() string {
	switch len(f.states) {
	case 0:
		return ""
	case 1:
		return f.states[0].String()
	}
	return "all"
}

// Type is what the help calls it.
func (f *statesFlag) Type() string { return "STATE" }

// typeFlag is --type: which types are meant. Names in it are the queue's, so it is understood once that has been read.
type typeFlag struct{ text string }

// Set reads the flag's value, as far as that goes without the queue.
func (f *typeFlag) Set(s string) error {
	if _, err := client.ParseSelector(s, nil); err != nil && !strings.ContainsFunc(s, isNameStart) {
		return fmt.Errorf("%.40q is no type: write 7, upto:7, not:7, 1,2,3 or names", s)
	}
	f.text = s
	return nil
}

func isNameStart(r rune) bool { return r == '_' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' }

// selector is what the flag means for a queue with these names for types.
func (f *typeFlag) selector(names map[string]int64) (queue.Selector, error) {
	parsed, err := client.ParseSelector(f.text, names)
	if err != nil {
		return queue.Selector{}, usageError{fmt.Errorf("--type: %w", err)}
	}
	kinds := map[client.SelectorKind]queue.SelectorKind{
		client.SelectType: queue.TypeIs, client.SelectUpTo: queue.LowestUpTo, client.SelectNot: queue.TypeIsNot, client.SelectOneOf: queue.TypeIn,
	}
	s := queue.Selector{Kind: kinds[parsed.Kind()]}
	switch types := parsed.Types(); {
	case s.Kind == queue.TypeIn:
		s.Types = types
	case len(types) > 0:
		s.Type = types[0]
	}
	return s, nil
}

// String is the flag's value.
func (f *typeFlag) String() string { return f.text }

// Type is what the help calls it.
func (f *typeFlag) Type() string { return "SEL" }

// countFlag is how many of something, 0 for all.
type countFlag struct{ n int }

// Set reads the flag's value.
func (f *countFlag) Set(s string) error {
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		return fmt.Errorf("%.40q is no count: write 1 to %d, or 0 for all", s, math.MaxInt32)
	}
	f.n = int(n)
	return nil
}

// String is the flag's value.
func (f *countFlag) String() string { return strconv.Itoa(f.n) }

// Type is what the help calls it.
func (f *countFlag) Type() string { return "N" }
