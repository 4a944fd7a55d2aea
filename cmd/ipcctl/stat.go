package main

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ipcd/ipcd/client"
)

func newStat(a *app) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "stat QUEUE...",
		Short: "Show all about queues: contents, traffic, binds, settings, kernel queues",
		Long:  "Show all about queues: contents, traffic, binds, settings and kernel queues. " + patternHelp,
		Example: `  ipcctl stat /jobs
  ipcctl stat /jobs 'jobs.*' -o yaml
  ipcctl stat /jobs -o json | jq '.queues[0].settings.type_names'`,
		Args: queuesArgs,
		RunE: a.short(func(ctx context.Context, _ *cobra.Command, args []string) error {
			c, err := a.dial()
			if err != nil {
				return err
			}
			n, err := a.named(ctx, args)
			if err != nil {
				return err
			}
			var queues []client.QueueInfo
			failed := a.each(ctx, n.names, func(name string) error {
				info, found := n.infos[name]
				if !found {
					var err error
					if info, err = c.GetQueue(ctx, name); err != nil {
						return err
					}
				}
				queues = append(queues, info)
				return nil
			})
			if len(queues) == 0 {
				return failed
			}
			var b bytes.Buffer
			switch output {
			case "json", "yaml":
				err = writeList(&b, output, "queues", queues, func(q client.QueueInfo) any { return viewQueue(q) })
			default:
				for i, q := range queues {
					if i > 0 {
						b.WriteString("\n")
					}
					a.writeStat(&b, q)
				}
			}
			if err != nil {
				return err
			}
			if err := a.print(b.String()); err != nil {
				return err
			}
			return failed
		}),
		ValidArgsFunction: a.completeQueues(anyNumber),
	}
	addOutput(cmd, &output, "text", "json", "yaml")
	return cmd
}

// report lines up labels and what belongs to them.
type report struct {
	a *app
	b *bytes.Buffer
}

func (r *report) section(title string) { r.b.WriteString(r.a.bold(title) + "\n") }

func (r *report) line(label, format string, args ...any) {
	fmt.Fprintf(r.b, "  %-19s %s\n", label, fmt.Sprintf(format, args...))
}

// writeStat writes all about a queue, for people.
func (a *app) writeStat(b *bytes.Buffer, q client.QueueInfo) {
	r := report{a, b}
	s, st := q.Settings, q.Stats
	r.section(escapeLine(q.Name))
	r.line("status", "%s", queueStatus(q))
	r.line("id", "%d", q.ID)
	if q.Temporary {
		r.line("lives", "as long as the session that opened it")
	}
	r.line("created", "%s (%s ago)", q.CreatedAt.Local().Format(time.DateTime), humanDuration(max(0, time.Since(q.CreatedAt))))

	r.section("Messages")
	r.line("ready", "%d%s", st.Ready, oldest(st.OldestAge))
	r.line("delayed", "%d", st.Delayed)
	r.line("leased", "%d", st.Leased)
	r.line("buried", "%d", st.Buried)
	if st.Uncommitted > 0 {
		r.line("uncommitted", "%d", st.Uncommitted)
	}
	r.line("all", "%d of %d", st.Messages(), s.MaxMessages)
	r.line("bytes", "%s of %s", humanBytes(uint64(st.Bytes)), humanBytes(uint64(s.MaxBytes)))
	r.line("dedup ids", "%d of %d", st.DedupIDs, value(s.MaxDedupIDs))

	r.section("Traffic")
	r.line("sent", "%d (%s/s)", st.SentTotal, humanRate(st.SendRate))
	r.line("delivered", "%d (%s/s)", st.DeliveredTotal, humanRate(st.DeliveryRate))
	r.line("consumed", "%d (%s/s acked)", st.ConsumedTotal, humanRate(st.AckRate))
	r.line("receivers", "%d waiting", st.Receivers)
	r.line("senders", "%d blocked", st.BlockedSenders)
	r.line("taps", "%d", st.Taps)
	for _, t := range []struct {
		label string
		total int64
	}{
		{"nacked", st.NackedTotal}, {"leases expired", st.LeaseExpiredTotal}, {"TTLs ended", st.TTLDroppedTotal},
		{"dropped for room", st.OverflowDroppedTotal}, {"dead-lettered", st.DeadLetteredTotal}, {"purged", st.PurgedTotal},
		{"moved away", st.MovedTotal}, {"duplicates", st.DuplicatesTotal}, {"peeked", st.PeekedTotal},
	} {
		r.line(t.label, "%d", t.total)
	}

	if binds := bindsOf(q); len(binds) > 0 {
		r.section("Binds")
		for _, b := range binds {
			r.line("to "+escapeLine(b.to()), "%s", b.text())
		}
	}

	r.section("Settings")
	r.line("durability", "%s", s.Durability)
	r.line("overflow", "%s", s.Overflow)
	r.line("max message size", "%s", humanBytes(uint64(value(s.MaxMessageSize))))
	r.line("lease", "%v", s.Lease)
	r.line("max attempts", "%d", s.MaxAttempts)
	r.line("back-off", "%s", backoffText(s))
	r.line("dead letters to", "%s", deadLetterText(s))
	r.line("dedup window", "%v", value(s.DedupWindow))
	r.line("type names", "%s", typeNamesText(s.TypeNames))
	if q.SchemaVersion > 0 {
		r.line("schema", "version %d", q.SchemaVersion)
	}
	r.line("owner", "%s:%s %s", userName(value(s.OwnerUID)), groupName(value(s.GroupGID)), modeText(value(s.Mode)))

	r.section("Kernel queues (POSIX)")
	r.line("mqueue", "%s", mqueueText(s.Mqueue, typeNamesByNumber(s.TypeNames)))
	for _, k := range q.KernelQueues {
		writeKernelQueue(&r, k)
	}
}

func writeKernelQueue(r *report, k client.KernelQueueStatus) {
	state := "closed"
	if k.Open {
		state = "open"
	}
	r.line(escapeLine(k.Direction), "%s, %s", escapeLine(k.Name), state)
	if k.Problem != "" {
		r.line("", "%s", escapeLine(k.Problem))
	}
	if !k.Open {
		return
	}
	r.line("", "%d of %s of up to %d bytes in it", k.CurrentMessages, count(k.MaxMessages, "message"), k.MessageSize)
	r.line("", "%d passed, %d skipped", k.PassedTotal, k.SkippedTotal)
	r.line("", "owner %s:%s %s", userName(k.OwnerUID), groupName(k.GroupGID), modeText(k.Mode))
}

func oldest(age time.Duration) string {
	if age < 0 {
		return ""
	}
	return fmt.Sprintf(", the oldest sent %s ago", humanDuration(age))
}

func backoffText(s client.QueueSettings) string {
	switch {
	case s.BackoffInitial == 0:
		return "none"
	case s.BackoffInitial >= s.BackoffMax:
		return s.BackoffInitial.String()
	}
	return fmt.Sprintf("%v, doubled up to %v", s.BackoffInitial, s.BackoffMax)
}

func deadLetterText(s client.QueueSettings) string {
	switch {
	case s.DeadLetterQueue == "":
		return "none, they are buried"
	case s.DeadLetterExpired:
		return escapeLine(s.DeadLetterQueue) + ", those whose TTL ended too"
	}
	return escapeLine(s.DeadLetterQueue)
}

// typeNamesText lists names by their types.
func typeNamesText(names map[string]int64) string {
	if len(names) == 0 {
		return "none"
	}
	byNumber := typeNamesByNumber(names)
	var parts []string
	for _, t := range slices.Sorted(maps.Keys(byNumber)) {
		parts = append(parts, fmt.Sprintf("%s=%d", escapeLine(byNumber[t]), t))
	}
	return strings.Join(parts, " ")
}

func mqueueText(k client.KernelQueue, names map[int64]string) string {
	text := k.Mode.String()
	if k.Mode == client.KernelNone {
		return text
	}
	if k.Mode != client.KernelOut {
		if k.TypePrefix {
			text += ", type from the first 8 bytes"
		} else {
			text += ", type " + typeText(max(k.Type, 1), names)
		}
	}
	if k.Mode == client.KernelOut || k.Mode == client.KernelBoth {
		text += ", out " + selectorText(k.OutSelector, names, "any")
	}
	return text
}
