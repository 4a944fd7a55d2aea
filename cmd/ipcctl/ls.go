package main

import (
	"cmp"
	"context"
	"iter"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/ipcd/ipcd/client"
)

// queueColumns are the columns of ls. damaged are the names of queues that are read-only because the journal is damaged.
func queueColumns(damaged map[string]bool) []listColumn[client.QueueInfo] {
	return []listColumn[client.QueueInfo]{
		word("name", func(q client.QueueInfo) string { return escapeLine(q.Name) }),
		word("status", func(q client.QueueInfo) string {
			if damaged[q.Name] {
				return "damaged"
			}
			return queueStatus(q)
		}),
		number("ready", func(q client.QueueInfo) int64 { return q.Stats.Ready }, decimal),
		number("delayed", func(q client.QueueInfo) int64 { return q.Stats.Delayed }, decimal),
		number("leased", func(q client.QueueInfo) int64 { return q.Stats.Leased }, decimal),
		number("buried", func(q client.QueueInfo) int64 { return q.Stats.Buried }, decimal),
		number("bytes", func(q client.QueueInfo) int64 { return q.Stats.Bytes }, bytesText),
		number("oldest", func(q client.QueueInfo) time.Duration { return q.Stats.OldestAge }, ageText),
		number("in/s", func(q client.QueueInfo) float64 { return q.Stats.SendRate }, humanRate),
		number("out/s", func(q client.QueueInfo) float64 { return q.Stats.DeliveryRate }, humanRate),
		number("ack/s", func(q client.QueueInfo) float64 { return q.Stats.AckRate }, humanRate),
		number("receivers", func(q client.QueueInfo) int { return q.Stats.Receivers }, strconv.Itoa),
		number("blocked", func(q client.QueueInfo) int { return q.Stats.BlockedSenders }, strconv.Itoa),
		number("taps", func(q client.QueueInfo) int { return q.Stats.Taps }, strconv.Itoa),
		number("sent", func(q client.QueueInfo) int64 { return q.Stats.SentTotal }, decimal),
		number("consumed", func(q client.QueueInfo) int64 { return q.Stats.ConsumedTotal }, decimal),
		number("moved", func(q client.QueueInfo) int64 { return q.Stats.MovedTotal }, decimal),
		number("max", func(q client.QueueInfo) int64 { return q.Settings.MaxMessages }, decimal),
		word("durability", func(q client.QueueInfo) string { return q.Settings.Durability.String() }),
		word("overflow", func(q client.QueueInfo) string { return q.Settings.Overflow.String() }),
		word("dead-letter", func(q client.QueueInfo) string { return cmp.Or(escapeLine(q.Settings.DeadLetterQueue), "-") }),
		word("mode", func(q client.QueueInfo) string { return modeText(value(q.Settings.Mode)) }),
		word("owner", func(q client.QueueInfo) string { return userName(value(q.Settings.OwnerUID)) }),
		word("group", func(q client.QueueInfo) string { return groupName(value(q.Settings.GroupGID)) }),
		word("mqueue", doorText),
		word("binds", bindsText),
		word("schema", schemaText),
		word("lives", func(q client.QueueInfo) string {
			if q.Temporary {
				return "session"
			}
			return "-"
		}),
	}
}

func newLs(a *app) *cobra.Command {
	damaged := map[string]bool{}
	l := &listing[client.QueueInfo]{
		things:  "queues",
		columns: queueColumns(damaged),
		table:   []string{"name", "status", "ready", "delayed", "leased", "buried", "oldest", "in/s", "out/s", "receivers", "mqueue"},
		name:    func(q client.QueueInfo) string { return q.Name },
		view:    func(q client.QueueInfo) any { return viewQueue(q) },
		each: func(ctx context.Context, c *client.Client, glob string) iter.Seq2[client.QueueInfo, error] {
			clear(damaged)
			info, err := c.Info(ctx)
			if err != nil {
				return func(yield func(client.QueueInfo, error) bool) { yield(client.QueueInfo{}, err) }
			}
			for _, name := range info.Storage.DamagedQueues {
				damaged[name] = true
			}
			return c.Queues(ctx, glob)
		},
	}
	cmd := &cobra.Command{
		Use:     "ls [GLOB]",
		Aliases: []string{"list"},
		Short:   "List queues: depth by state, age, rates, receivers, kernel queues",
		Long: `List the queues that you may look at, and whose names match GLOB if one is given (quote it in a shell).

Ready, delayed, leased and buried count messages by state; oldest is the age of the oldest ready one;
in/s and out/s are messages sent and delivered a second over the last ten seconds or so; receivers wait
for messages; mqueue tells which kernel queues (mq_overview(7)) are open, or why not. Status is ok, paused,
full, or damaged: read-only, because the journal is damaged. With -o wide: binds are the queues that get copies of what
is sent; schema is the current version; a queue that lives as long as a session is temporary.`,
		Example: `  ipcctl ls
  ipcctl ls 'jobs*' --sort ready --reverse
  ipcctl ls -o wide --watch=1s
  ipcctl ls --columns name,ready,oldest --no-headers
  ipcctl ls -o json | jq '.queues[] | select(.stats.ready > 100).name'`,
		Args:              globArgs,
		RunE:              l.run(a),
		ValidArgsFunction: a.completeQueues(1),
	}
	l.add(cmd)
	return cmd
}
