package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"iter"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ipcd/ipcd/client"
)

// listColumn is one thing that a listing of T can show and sort by.
type listColumn[T any] struct {
	name    string
	right   bool
	show    func(T) string
	compare func(a, b T) int
}

// number makes a column of numbers. text writes them.
func number[T any, N cmp.Ordered](name string, get func(T) N, text func(N) string) listColumn[T] {
	return listColumn[T]{name, true,
		func(v T) string { return text(get(v)) },
		func(a, b T) int { return cmp.Compare(get(a), get(b)) }}
}

// word makes a column of text.
func word[T any](name string, get func(T) string) listColumn[T] {
	return listColumn[T]{name, false, get, func(a, b T) int { return strings.Compare(get(a), get(b)) }}
}

func decimal(n int64) string { return strconv.FormatInt(n, 10) }

func bytesText(n int64) string { return humanBytes(uint64(n)) }

func ageText(d time.Duration) string {
	if d < 0 {
		return "-"
	}
	return humanDuration(d)
}

// listing is what ls, ring ls and clients have in common: all about T is in the first fields, the others are flags.
type listing[T any] struct {
	things  string          // what is listed, as json names it: "queues"
	columns []listColumn[T] // rows are sorted by the first unless --sort says otherwise
	table   []string        // the columns that -o table shows
	name    func(T) string  // what -o name shows; nil: the things have no names
	view    func(T) any     // as json and yaml show it
	each    func(ctx context.Context, c *client.Client, glob string) iter.Seq2[T, error]

	output    string
	sort      listColumn[T]
	reverse   bool
	shown     []listColumn[T]
	noHeaders bool
	watch     bool
	interval  time.Duration
}

// add adds the flags.
func (l *listing[T]) add(cmd *cobra.Command) {
	names := make([]string, len(l.columns))
	for i, c := range l.columns {
		names[i] = c.name
	}
	parse := func(s string) (listColumn[T], error) {
		return oneOf("column", names, l.columns...)(strings.ToLower(s))
	}
	flags := cmd.Flags()
	outputs := []string{"table", "wide", "json", "jsonl", "yaml"}
	if l.name != nil {
		outputs = append(outputs, "name")
	}
	addOutput(cmd, &l.output, outputs...)
	l.sort = l.columns[0]
	addFlag(flags, &l.sort, "sort", "COLUMN", "sort by this column (default "+l.sort.name+")", parse)
	completeWords(cmd, "sort", names)
	flags.BoolVarP(&l.reverse, "reverse", "r", false, "sort the other way round")
	addFlag(flags, &l.shown, "columns", "COLUMN,...", "show these columns: "+strings.Join(names, ", "), func(s string) ([]listColumn[T], error) {
		var columns []listColumn[T]
		for name := range strings.SplitSeq(s, ",") {
			c, err := parse(strings.TrimSpace(name))
			if err != nil {
				return nil, err
			}
			columns = append(columns, c)
		}
		return columns, nil
	})
	flags.BoolVar(&l.noHeaders, "no-headers", false, "leave out the line of headings")
	addWatch(cmd, &l.watch, &l.interval)
}

// addWatch adds --watch, which may say how often, and --interval.
func addWatch(cmd *cobra.Command, watch *bool, interval *time.Duration) {
	const usual = "2s"
	*interval = 2 * time.Second
	cmd.Flags().VarP(&flagValue[bool]{target: watch, kind: "DURATION", parse: func(s string) (bool, error) {
		every, err := parseInterval(s)
		if err == nil && s != usual { // which is also what it is without a value: --interval may say more
			*interval = every
		}
		return err == nil, err
	}}, "watch", "w", "show it again and again, every 2s or as said, as in --watch=500ms")
	cmd.Flags().Lookup("watch").NoOptDefVal = usual
	addFlag(cmd.Flags(), interval, "interval", "DURATION", "the same, for --watch without a duration", parseInterval)
}

func parseInterval(s string) (time.Duration, error) {
	d, err := parseDuration(s)
	if err == nil && d < 100*time.Millisecond {
		err = fmt.Errorf("%s is too often: at least 100ms", quoteArg(s))
	}
	return d, err
}

// globArgs wants one pattern at most.
func globArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 1 {
		return usagef("%s takes one pattern, %s is too much; quote it so that the shell leaves it alone: %s 'jobs*'", commandName(cmd), quoteArg(args[1]), cmd.CommandPath())
	}
	if len(args) == 1 {
		if _, err := path.Match(args[0], ""); err != nil {
			return badPattern(args[0])
		}
	}
	return nil
}

// run lists once, or with --watch until it is interrupted.
func (l *listing[T]) run(a *app) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		glob := ""
		if len(args) == 1 {
			glob = strings.TrimPrefix(args[0], "/")
		}
		if l.watch {
			if _, err := time.ParseDuration(glob); err == nil && glob != "0" {
				return usagef("%s is taken for a pattern of names: write --watch=%s", quoteArg(glob), glob)
			}
			return a.long(func(ctx context.Context, _ *cobra.Command, _ []string) error {
				return a.watch(ctx, l.interval, func() (string, error) { return l.text(ctx, a, glob) })
			})(cmd, args)
		}
		return a.short(func(ctx context.Context, _ *cobra.Command, _ []string) error { return l.once(ctx, a, glob) })(cmd, args)
	}
}

func (l *listing[T]) once(ctx context.Context, a *app, glob string) error {
	text, err := l.text(ctx, a, glob)
	if err != nil {
		return err
	}
	if text == "" && a.eTTY {
		which := "that you may look at"
		if glob != "" {
			which += " match " + quoteArg(glob)
		}
		a.say("no %s %s", l.things, which)
	}
	return a.print(text)
}

// text returns what is printed once.
func (l *listing[T]) text(ctx context.Context, a *app, glob string) (string, error) {
	c, err := a.dial()
	if err != nil {
		return "", err
	}
	var all []T
	for v, err := range l.each(ctx, c, glob) {
		if err != nil {
			return "", err
		}
		all = append(all, v)
	}
	slices.SortStableFunc(all, l.sort.compare)
	if l.reverse {
		slices.Reverse(all)
	}
	var b bytes.Buffer
	switch l.output {
	case "json", "yaml":
		err = writeList(&b, l.output, l.things, all, l.view)
	case "jsonl":
		for _, v := range all {
			line, err := marshalJSON(l.view(v))
			if err != nil {
				return "", err
			}
			b.Write(append(line, '\n'))
		}
	case "name":
		for _, v := range all {
			b.WriteString(escapeLine(l.name(v)) + "\n")
		}
	default:
		l.writeTable(&b, a, all)
	}
	return b.String(), err
}

// writeList writes one document, json or yaml, with the list of that name.
func writeList[T any](b *bytes.Buffer, output, name string, all []T, view func(T) any) error {
	if output == "yaml" {
		views := make([]any, 0, len(all))
		for _, v := range all {
			views = append(views, view(v))
		}
		return writeYAML(b, map[string][]any{name: views})
	}
	doc := document{w: b, list: name}
	for _, v := range all {
		if err := doc.add(view(v)); err != nil {
			return err
		}
	}
	return doc.end()
}

func (l *listing[T]) writeTable(b *bytes.Buffer, a *app, all []T) {
	if len(all) == 0 {
		return
	}
	shown := l.shown
	if shown == nil {
		for _, c := range l.columns {
			if l.output == "wide" || slices.Contains(l.table, c.name) {
				shown = append(shown, c)
			}
		}
	}
	width := 0
	if l.output != "wide" {
		width, _ = a.size()
	}
	writeColumns(b, a, shown, all, !l.noHeaders, width)
}

// writeColumns writes a table with a row for each of all, cut to width columns of a terminal; 0: no bound.
func writeColumns[T any](b *bytes.Buffer, a *app, columns []listColumn[T], all []T, headers bool, width int) {
	t := table{headers: headers, heading: a.bold, maxWidth: width}
	for _, c := range columns {
		t.columns = append(t.columns, column{strings.ToUpper(c.name), c.right})
	}
	for _, v := range all {
		row := make([]string, len(columns))
		for i, c := range columns {
			row[i] = c.show(v)
		}
		t.rows = append(t.rows, row)
	}
	for _, line := range t.lines() {
		b.WriteString(line + "\n")
	}
}
