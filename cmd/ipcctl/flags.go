package main

import (
	"context"
	"fmt"
	"math"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ipcd/ipcd/client"
)

// flagValue is a flag that is read by a function of this package.
type flagValue[T any] struct {
	target *T
	parse  func(string) (T, error)
	kind   string // shown in the help
	text   string // as it was given
}

func (v *flagValue[T]) Set(s string) error {
	parsed, err := v.parse(s)
	if err != nil {
		return err
	}
	*v.target, v.text = parsed, s
	return nil
}

func (v *flagValue[T]) String() string { return v.text }
func (v *flagValue[T]) Type() string   { return v.kind }

func addFlag[T any](f *pflag.FlagSet, target *T, name, kind, usage string, parse func(string) (T, error)) {
	f.Var(&flagValue[T]{target: target, parse: parse, kind: kind}, name, usage)
}

// addText adds a flag for text, with a letter of its own unless that is "".
func addText(f *pflag.FlagSet, target *string, name, letter, kind, usage string) {
	f.VarP(&flagValue[string]{target: target, parse: func(s string) (string, error) { return s, nil }, kind: kind}, name, letter, usage)
}

// flagList is a flag that may be given several times.
type flagList[T any] struct {
	target *[]T
	parse  func(string) (T, error)
	kind   string
}

func (v *flagList[T]) Set(s string) error {
	parsed, err := v.parse(s)
	if err != nil {
		return err
	}
	*v.target = append(*v.target, parsed)
	return nil
}

func (v *flagList[T]) String() string { return "" }
func (v *flagList[T]) Type() string   { return v.kind }

func addList[T any](f *pflag.FlagSet, target *[]T, name, kind, usage string, parse func(string) (T, error)) {
	f.Var(&flagList[T]{target: target, parse: parse, kind: kind}, name, usage)
}

// addSelector adds --type for a selector. An empty one is refused: what a script forgot to set must not mean everything.
func addSelector(cmd *cobra.Command, a *app, target *string, usage string) {
	cmd.Flags().VarP(&flagValue[string]{target: target, parse: someSelector, kind: "SEL"}, "type", "t", usage)
	completeTypes(cmd, a)
}

func someSelector(s string) (string, error) {
	if strings.TrimSpace(s) == "" {
		return "", fmt.Errorf("%s selects nothing: write any for all types, or leave out the flag", quoteArg(s))
	}
	return s, nil
}

// headerMap turns headers into the client's form. A name given twice takes its last value.
func headerMap(headers []header) map[string][]byte {
	if len(headers) == 0 {
		return nil
	}
	m := make(map[string][]byte, len(headers))
	for _, h := range headers {
		m[h.key] = []byte(h.value)
	}
	return m
}

// lookupUID returns the uid for a user's name or number.
func lookupUID(s string) (uint32, error) {
	return lookupID(s, "user", func(name string) (string, error) {
		u, err := user.Lookup(name)
		if err != nil {
			return "", err
		}
		return u.Uid, nil
	})
}

// lookupGID returns the gid for a group's name or number.
func lookupGID(s string) (uint32, error) {
	return lookupID(s, "group", func(name string) (string, error) {
		g, err := user.LookupGroup(name)
		if err != nil {
			return "", err
		}
		return g.Gid, nil
	})
}

func lookupID(s, what string, lookup func(string) (string, error)) (uint32, error) {
	if n, err := strconv.ParseUint(s, 10, 32); err == nil {
		if n == math.MaxUint32 { // -1 to chown(2): leave it as it is
			return 0, fmt.Errorf("%s is no %s's number: the largest is %d", quoteArg(s), what, uint32(math.MaxUint32-1))
		}
		return uint32(n), nil
	}
	text, err := lookup(s)
	if err == nil {
		if n, err := strconv.ParseUint(text, 10, 32); err == nil {
			return uint32(n), nil
		}
	}
	return 0, fmt.Errorf("%s: this host knows no %s of that name; a number works too", quoteArg(s), what)
}

// queueArgs wants so many names of queues.
func queueArgs(atLeast, atMost int) cobra.PositionalArgs { return nameArgs("queue", atLeast, atMost) }

// nameArgs wants so many names of things.
func nameArgs(thing string, atLeast, atMost int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < atLeast {
			return usagef("name a %s, as in: %s; see %s --help", thing, firstExample(cmd), cmd.CommandPath())
		}
		if len(args) > atMost {
			return usagef("%s takes one %s, %s is too much; see %s --help", commandName(cmd), thing, quoteArg(args[atMost]), cmd.CommandPath())
		}
		return nil
	}
}

// firstExample is the first line of a command's examples.
func firstExample(cmd *cobra.Command) string {
	line, _, _ := strings.Cut(strings.TrimSpace(cmd.Example), "\n")
	return line
}

// commandName is a command as it is typed after ipcctl: "stat", "ring stat".
func commandName(cmd *cobra.Command) string {
	_, name, _ := strings.Cut(cmd.CommandPath(), " ")
	return name
}

const anyNumber = 1 << 30

// noArgs wants nothing but flags.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("%s takes no arguments, %s is too much; see %s --help", cmd.Name(), quoteArg(args[0]), cmd.CommandPath())
	}
	return nil
}

// filterFlags is what peek, purge and kick have in common.
type filterFlags struct {
	selector  string
	states    []client.State
	sequences sequences
	olderThan time.Duration
	headers   []header
}

func (f *filterFlags) add(cmd *cobra.Command, a *app) {
	flags := cmd.Flags()
	addSelector(cmd, a, &f.selector, "only the types in SEL: 7, upto:7, not:7, 1,2,3 or names")
	addFlag(flags, &f.sequences, "seq", "A-B", "only these sequences: 10-20, 10-, -20 or 10", parseSequences)
	addFlag(flags, &f.olderThan, "older-than", "DURATION", "only what was sent at least this long ago, such as 1h", parseDuration)
	addList(flags, &f.headers, "header", "NAME=VALUE", "only with this header (repeat for more)", parseHeader)
}

var stateWords = []string{"ready", "delayed", "leased", "buried"}
var allStates = []client.State{client.StateReady, client.StateDelayed, client.StateLeased, client.StateBuried}

func (f *filterFlags) addStates(cmd *cobra.Command, usage string) {
	addFlag(cmd.Flags(), &f.states, "state", "STATE", usage, parseStates)
	completeWords(cmd, "state", append([]string{"all"}, stateWords...))
}

// parseStates reads states separated by commas, or all.
func parseStates(s string) ([]client.State, error) {
	if s == "all" {
		return allStates, nil
	}
	var states []client.State
	for word := range strings.SplitSeq(s, ",") {
		i := slices.Index(stateWords, word)
		if i < 0 {
			words := append([]string{"all"}, stateWords...)
			return nil, fmt.Errorf("%s is no state: %s%s", quoteArg(word), strings.Join(words, ", "), didYouMean(word, words))
		}
		states = append(states, allStates[i])
	}
	return states, nil
}

// filter returns the filter for a queue, which is asked for the names of its types if need be.
func (f *filterFlags) filter(ctx context.Context, c *client.Client, queue string) (client.Filter, error) {
	selector, err := resolveSelector(ctx, c, queue, f.selector)
	if err != nil {
		return client.Filter{}, err
	}
	return client.Filter{
		Selector:    selector,
		States:      f.states,
		MinSequence: f.sequences.first,
		MaxSequence: f.sequences.last,
		OlderThan:   f.olderThan,
		Headers:     headerMap(f.headers),
	}, nil
}
