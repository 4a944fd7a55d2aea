package main

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/ipcd/ipcd/client"
)

// resolveSelector reads a selector for a queue, which is asked for the names of its types where the text
// has names.
func resolveSelector(ctx context.Context, c *client.Client, queue, text string) (client.Selector, error) {
	selector, err := client.ParseSelector(text, nil)
	if err == nil {
		return selector, nil
	}
	if !mayHaveNames(text) {
		return client.Selector{}, usagef("--type: %v", err)
	}
	info, err := c.GetQueue(ctx, queue)
	if err != nil {
		return client.Selector{}, err
	}
	selector, err = client.ParseSelector(text, info.Settings.TypeNames)
	if err != nil {
		return selector, unknownName(err, queue, text, info.Settings.TypeNames)
	}
	return selector, nil
}

// commonSelector reads a selector for several queues at once. Names of types must mean the same in all of them.
func commonSelector(ctx context.Context, c *client.Client, queues []string, text string) (client.Selector, error) {
	selector, err := resolveSelector(ctx, c, queues[0], text)
	if err != nil || !mayHaveNames(text) {
		return selector, err
	}
	for _, name := range queues[1:] {
		other, err := resolveSelector(ctx, c, name, text)
		if err != nil {
			return selector, err
		}
		if other.String() != selector.String() {
			return selector, usagef("--type: %s means %v in %s and %v in %s: write numbers", quoteArg(text), selector, queues[0], other, name)
		}
	}
	return selector, nil
}

// resolveType reads the type of a message to send: a number, or a name that the queue is asked for.
func resolveType(ctx context.Context, c *client.Client, queue, text string) (int64, error) {
	t, err := parseType(text)
	if err == nil {
		return t, nil
	}
	if !mayHaveNames(text) {
		return 0, usagef("--type: %v", err)
	}
	info, err := c.GetQueue(ctx, queue)
	if err != nil {
		return 0, err
	}
	if t, err = client.ParseType(text, info.Settings.TypeNames); err != nil {
		return 0, unknownName(err, queue, text, info.Settings.TypeNames)
	}
	return t, nil
}

// unknownName explains why a type's name means nothing.
func unknownName(err error, queue, text string, names map[string]int64) error {
	if len(names) == 0 {
		return usagef("--type: %v; %s has no names for types (ipcctl update %s --type-name NAME=TYPE)", err, queue, queue)
	}
	return usagef("--type: %v%s", err, didYouMean(text, slices.Sorted(maps.Keys(names))))
}

// mayHaveNames reports whether some word of a selector could be a name.
func mayHaveNames(text string) bool {
	for _, prefix := range []string{"upto:", "not:", "<=", "!"} {
		text = strings.TrimPrefix(text, prefix)
	}
	for word := range strings.SplitSeq(text, ",") {
		word = strings.TrimSpace(word)
		if word != "" && (word[0] == '_' || unicode.IsLetter(rune(word[0]))) && word[0] < 0x80 {
			return true
		}
	}
	return false
}

// parseType reads a type's number.
func parseType(s string) (int64, error) {
	t, err := strconv.ParseInt(s, 10, 64)
	if err != nil || t <= 0 || s[0] == '+' {
		return 0, fmt.Errorf("%s is no type: write 1 to %d, or the name of a type", quoteArg(s), int64(math.MaxInt64))
	}
	return t, nil
}

// typeNamesByNumber turns names around, for showing.
func typeNamesByNumber(names map[string]int64) map[int64]string {
	byNumber := make(map[int64]string, len(names))
	for name, t := range names {
		byNumber[t] = name
	}
	return byNumber
}
