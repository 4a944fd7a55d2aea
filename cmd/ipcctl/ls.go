package main

import (
	"bytes"
	"cmp"
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

// queueColumn is one thing that ls can show and sort by.
type queueColumn struct {
	name    string
	right   bool
	show    func(client.QueueInfo) string
	compare func(a, b client.QueueInfo) int
}

// number makes a column of numbers. text writes them.
func number[T cmp.Ordered](name string, get func(client.QueueInfo) T, text func(T) string) queueColumn {
	return queueColumn{name, true,
		func(q client.QueueInfo) string { return text(get(q)) },
		func(a, b client.QueueInfo) int { return cmp.Compare(get(a), get(b)) }}
}

// word makes a column of text.
func word(name string, get func(client.QueueInfo) string) queueColumn {
	return queueColumn{name, false, get, func(a, b client.QueueInfo) int { return strings.Compare(get(a), get(b)) }}
}

func decimal(n int64) string { return strconv.FormatInt(n, 10) }

func ageText(d time.Duration) string {
	if d < 0 {
		return "-"
	}
	return humanDuration(d)
}

var queueColumns = []queueColumn{
	word("name", func(q client.QueueInfo) string { return escapeLine(q.Name) }),
	word("status", queueStatus),
	number("ready", func(q client.QueueInfo) int64 { return q.Stats.Ready }, decimal),
	number("delayed", func(q client.QueueInfo) int64 { return q.Stats.Delayed }, decimal),
	number("leased", func(q client.QueueInfo) int64 { return q.Stats.Leased }, decimal),
	number("buried", func(q client.QueueInfo) int64 { return q.Stats.Buried }, decimal),
	number("bytes", func(q client.QueueInfo) int64 { return q.Stats.Bytes }, func(n int64) string { return humanBytes(uint64(n)) }),
	number("oldest", func(q client.QueueInfo) time.Duration { return q.Stats.OldestAge }, ageText),
	number("in/s", func(q client.QueueInfo) float64 { return q.Stats.SendRate }, humanRate),
	number("out/s", func(q client.QueueInfo) float64 { return q.Stats.DeliveryRate }, humanRate),
	number("ack/s", func(q client.QueueInfo) float64 { return q.Stats.AckRate }, humanRate),
	number("receivers", func(q client.QueueInfo) int { return q.Stats.Receivers }, strconv.Itoa),
	number("blocked", func(q client.QueueInfo) int { return q.Stats.BlockedSenders }, strconv.Itoa),
	number("sent", func(q client.QueueInfo) int64 { return q.Stats.SentTotal }, decimal),
	number("consumed", func(q client.QueueInfo) int64 { return q.Stats.ConsumedTotal }, decimal),
	number("max", func(q client.QueueInfo) int64 { return q.Settings.MaxMessages }, decimal),
	word("durability", func(q client.QueueInfo) string { return q.Settings.Durability.String() }),
	word("overflow", func(q client.QueueInfo) string { return q.Settings.Overflow.String() }),
	word("dead-letter", func(q client.QueueInfo) string { return cmp.Or(escapeLine(q.Settings.DeadLetterQueue), "-") }),
	word("mode", func(q client.QueueInfo) string { return modeText(value(q.Settings.Mode)) }),
	word("owner", func(q client.QueueInfo) string { return userName(value(q.Settings.OwnerUID)) }),
	word("group", func(q client.QueueInfo) string { return groupName(value(q.Settings.GroupGID)) }),
	word("mqueue", doorText),
}

var (
	tableColumns = []string{"name", "status", "ready", "delayed", "leased", "buried", "oldest", "in/s", "out/s", "receivers", "mqueue"}
	wideColumns  = columnNames()
)

func columnNames() []string {
	names := make([]string, len(queueColumns))
	for i, c := range queueColumns {
		names[i] = c.name
	}
	return names
}

func parseColumn(s string) (queueColumn, error) {
	return oneOf("column", columnNames(), queueColumns...)(strings.ToLower(s))
}

func parseColumns(s string) ([]queueColumn, error) {
	var columns []queueColumn
	for name := range strings.SplitSeq(s, ",") {
		c, err := parseColumn(strings.TrimSpace(name))
		if err != nil {
			return nil, err
		}
		columns = append(columns, c)
	}
	return columns, nil
}

type lsOptions struct {
	output    string
	sort      queueColumn
	reverse   bool
	columns   []queueColumn
	noHeaders bool
	watch     bool
	interval  time.Duration
}

func newLs(a *app) *cobra.Command {
	o := lsOptions{interval: 2 * time.Second}
	cmd := &cobra.Command{
		Use:     "ls [GLOB]",
		Aliases: []string{"list"},
		Short:   "List queues: depth by state, age, rates, receivers, kernel queues",
		Long: `List the queues that you may look at, and whose names match GLOB if one is given (quote it in a shell).

Ready, delayed, leased and buried count messages by state; oldest is the age of the oldest ready one;
in/s and out/s are messages sent and delivered a second over the last ten seconds or so; receivers wait
for messages; mqueue tells which kernel queues (mq_overview(7)) are open, or why not.`,
		Example: `  ipcctl ls
  ipcctl ls 'jobs*' --sort ready --reverse
  ipcctl ls -o wide --watch
  ipcctl ls --columns name,ready,oldest --no-headers
  ipcctl ls -o json | jq '.queues[] | select(.stats.ready > 100).name'`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("ls takes one pattern, %s is too much; quote it so that the shell leaves it alone: ipcctl ls 'jobs*'", quoteArg(args[1]))
			}
			if len(args) == 1 {
				if _, err := path.Match(args[0], ""); err != nil {
					return usagef("%s is no pattern: write * for any text, ? for one character, [a-z] for some", quoteArg(args[0]))
				}
			}
			return nil
		},
		RunE: a.long(func(ctx context.Context, _ *cobra.Command, args []string) error {
			glob := ""
			if len(args) == 1 {
				glob = strings.TrimPrefix(args[0], "/")
			}
			if o.watch {
				return a.watch(ctx, o.interval, func() (string, error) { return a.list(ctx, glob, &o) })
			}
			ctx, cancel := context.WithTimeout(ctx, defaultTimeout)
			defer cancel()
			text, err := a.list(ctx, glob, &o)
			if err != nil {
				return err
			}
			if text == "" && a.eTTY {
				which := "that you may look at"
				if glob != "" {
					which += " match " + quoteArg(glob)
				}
				a.say("no queues %s", which)
			}
			return a.print(text)
		}),
		ValidArgsFunction: a.completeQueues(1),
	}
	flags := cmd.Flags()
	addOutput(cmd, &o.output, "table", "wide", "json", "yaml", "name")
	addFlag(flags, &o.sort, "sort", "COLUMN", "sort by this column (default name)", parseColumn)
	completeWords(cmd, "sort", columnNames())
	flags.BoolVarP(&o.reverse, "reverse", "r", false, "sort the other way round")
	addFlag(flags, &o.columns, "columns", "COLUMN,...", "show these columns: "+strings.Join(columnNames(), ","), parseColumns)
	flags.BoolVar(&o.noHeaders, "no-headers", false, "leave out the line of headings")
	flags.BoolVarP(&o.watch, "watch", "w", false, "show it again and again")
	addFlag(flags, &o.interval, "interval", "DURATION", "how often --watch looks (default 2s)", parseInterval)
	return cmd
}

func parseInterval(s string) (time.Duration, error) {
	d, err := parseDuration(s)
	if err == nil && d < 100*time.Millisecond {
		err = fmt.Errorf("%s is too often: at least 100ms", quoteArg(s))
	}
	return d, err
}

// list returns what ls prints once.
func (a *app) list(ctx context.Context, glob string, o *lsOptions) (string, error) {
	c, err := a.dial()
	if err != nil {
		return "", err
	}
	var queues []client.QueueInfo
	for q, err := range c.Queues(ctx, glob) {
		if err != nil {
			return "", err
		}
		queues = append(queues, q)
	}
	if o.sort.compare != nil {
		slices.SortStableFunc(queues, o.sort.compare)
	}
	if o.reverse {
		slices.Reverse(queues)
	}
	var b bytes.Buffer
	switch o.output {
	case "json":
		err = writeQueuesJSON(&b, queues)
	case "yaml":
		err = writeQueuesYAML(&b, queues)
	case "name":
		for _, q := range queues {
			b.WriteString(escapeLine(q.Name) + "\n")
		}
	default:
		a.writeQueueTable(&b, queues, o)
	}
	return b.String(), err
}

func writeQueuesJSON(b *bytes.Buffer, queues []client.QueueInfo) error {
	doc := document{w: b, list: "queues"}
	for _, q := range queues {
		if err := doc.add(viewQueue(q)); err != nil {
			return err
		}
	}
	return doc.end()
}

func writeQueuesYAML(b *bytes.Buffer, queues []client.QueueInfo) error {
	views := make([]queueView, 0, len(queues))
	for _, q := range queues {
		views = append(views, viewQueue(q))
	}
	return writeYAML(b, map[string][]queueView{"queues": views})
}

func (a *app) writeQueueTable(b *bytes.Buffer, queues []client.QueueInfo, o *lsOptions) {
	if len(queues) == 0 {
		return
	}
	shown := o.columns
	if shown == nil {
		names := tableColumns
		if o.output == "wide" {
			names = wideColumns
		}
		for _, name := range names {
			c, _ := parseColumn(name)
			shown = append(shown, c)
		}
	}
	t := table{headers: !o.noHeaders, heading: a.bold}
	if o.output != "wide" {
		t.maxWidth, _ = a.size()
	}
	for _, c := range shown {
		t.columns = append(t.columns, column{strings.ToUpper(c.name), c.right})
	}
	for _, q := range queues {
		row := make([]string, len(shown))
		for i, c := range shown {
			row[i] = c.show(q)
		}
		t.rows = append(t.rows, row)
	}
	for _, line := range t.lines() {
		b.WriteString(line + "\n")
	}
}
