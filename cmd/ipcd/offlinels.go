package main

import (
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/ipcd/ipcd/broker"
	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/units"
)

func newLs() *cobra.Command {
	var state stateFlag
	output := outputFlag{words: []string{"text", "json"}, word: "text"}
	c := &cobra.Command{
		Use:   "ls",
		Short: "list the queues of a state directory, without a daemon",
		Long: `List the queues as the journal of a state directory has them. Nothing is written, and no daemon may run on
the directory meanwhile (ipcctl ls asks one that runs).

Leased messages are those whose lease had not ended by the last record; after a crash they are ready again.
The messages of a memory queue are not in the journal.`,
		Example: `  ipcd ls
  ipcd ls --state-dir /srv/copy-of-ipcd
  ipcd ls -o json | jq '.queues[] | select(.stats.buried > 0).name'`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			dir, err := state.path(c)
			if err != nil {
				return err
			}
			found, done, err := inspect(c, dir, "reading", false)
			if err != nil {
				return err
			}
			defer done()
			if err := listQueues(c, found.Queues, output.word); err != nil {
				return err
			}
			return damageOf(found, "what is listed is what is left; ipcd fsck says more")
		},
	}
	state.add(c)
	output.add(c)
	return c
}

func listQueues(c *cobra.Command, queues []broker.Info, output string) error {
	if output == "json" {
		views := make([]queueView, len(queues))
		for i, q := range queues {
			views[i] = viewQueue(&q)
		}
		return writeJSON(c.OutOrStdout(), map[string][]queueView{"queues": views})
	}
	if len(queues) == 0 {
		fmt.Fprintln(c.ErrOrStderr(), "no queues")
		return nil
	}
	t := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tDURABILITY\tREADY\tDELAYED\tLEASED\tBURIED\tBYTES")
	for _, q := range queues {
		n := countStates(q.Stats.Stats)
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%d\t%d\t%s\n", escapeLine(q.Name), durabilityName(q.Settings.Durability),
			n.Ready, n.Delayed, n.Leased, n.Buried, units.FormatSize(q.Stats.Bytes))
	}
	return t.Flush()
}

// queueView is a queue in JSON, with the names that ipcctl uses. Fields may be added; what is there stays.
type queueView struct {
	Name       string       `json:"name"`
	ID         uint64       `json:"id"`
	Paused     bool         `json:"paused"`
	CreateTime string       `json:"create_time"`
	Settings   settingsView `json:"settings"`
	Stats      statsView    `json:"stats"`
}

type settingsView struct {
	Durability string           `json:"durability"`
	TypeNames  map[string]int64 `json:"type_names"`
}

type statsView struct {
	stateCounts
	Bytes int64 `json:"bytes"`
}

func viewQueue(q *broker.Info) queueView {
	names := q.Settings.TypeNames
	if names == nil {
		names = map[string]int64{}
	}
	return queueView{
		Name: q.Name, ID: q.ID, Paused: q.Paused, CreateTime: machineTime(q.CreatedAt),
		Settings: settingsView{Durability: durabilityName(q.Settings.Durability), TypeNames: names},
		Stats:    statsView{countStates(q.Stats.Stats), q.Stats.Bytes},
	}
}

func durabilityName(d queue.Durability) string {
	if d == queue.Journal {
		return "journal"
	}
	return "memory"
}
