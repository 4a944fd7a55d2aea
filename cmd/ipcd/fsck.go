package main

import (
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ipcd/ipcd/broker"
	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/units"
)

func newFsck() *cobra.Command {
	var state stateFlag
	var asJSON bool
	c := &cobra.Command{
		Use:   "fsck",
		Short: "check a state directory for damage",
		Long: `Check the journal of a state directory: every frame, every payload, every index and every queue. Nothing is
written, and no daemon may run on the directory meanwhile.

A torn tail is normal after a crash, and no damage: what stands there was never acknowledged.

Exit codes: 0 no damage, 65 damage, 1 it could not be checked, 2 mistake on the command line.`,
		Example: `  ipcd fsck
  ipcd fsck --state-dir /srv/copy-of-ipcd
  ipcd fsck --json | jq '.damage[].file'`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			dir, err := state.path(c)
			if err != nil {
				return err
			}
			return fsck(c, dir, asJSON)
		},
	}
	state.add(c)
	c.Flags().BoolVar(&asJSON, "json", false, "report as one JSON document")
	return c
}

func fsck(c *cobra.Command, dir string, asJSON bool) error {
	found, done, err := inspect(c, dir, "fsck", true)
	if err != nil {
		return err
	}
	defer done()
	report := newFsckReport(dir, found)
	if asJSON {
		err = writeJSON(c.OutOrStdout(), report)
	} else {
		err = report.write(c.OutOrStdout())
	}
	if err != nil {
		return err
	}
	return damageOf(found, "nothing was changed; start ipcd with --on-damage quarantine to go on without the queues concerned, or bring back a backup with ipcd restore")
}

// damageOf is the error for what was found, nil if all is well.
func damageOf(found *broker.Inspection, advice string) error {
	if damage := found.DamageError(); damage != nil {
		return damageFound{*damage, advice}
	}
	return nil
}

// fsckReport is what fsck says. Fields may be added; what is there stays.
type fsckReport struct {
	StateDir        string       `json:"state_dir"`
	Damaged         bool         `json:"damaged"`
	Segments        int          `json:"segments"`
	Bytes           int64        `json:"bytes"` // of records in them
	Frames          int64        `json:"frames"`
	CleanStop       bool         `json:"clean_stop"`
	LastRecordTime  string       `json:"last_record_time,omitempty"`
	Queues          int          `json:"queues"`
	Messages        stateCounts  `json:"messages"`
	MessageBytes    int64        `json:"message_bytes"`
	Damage          []fsckDamage `json:"damage"`
	ConcernedQueues []string     `json:"concerned_queues"` // as far as it is known
	// Queues that have been read-only since a daemon accepted damage, and why.
	Quarantined map[string]string `json:"quarantined"`
}

type stateCounts struct {
	Ready   int64 `json:"ready"`
	Delayed int64 `json:"delayed"`
	Leased  int64 `json:"leased"`
	Buried  int64 `json:"buried"`
}

func (n stateCounts) total() int64 { return n.Ready + n.Delayed + n.Leased + n.Buried }

func countStates(s queue.Stats) stateCounts {
	return stateCounts{s.Ready, s.Delayed, s.Leased, s.Buried}
}

type fsckDamage struct {
	File       string   `json:"file,omitempty"` // absent: a whole file is missing, or it is not about one
	Offset     int64    `json:"offset"`         // bytes
	Generation uint64   `json:"generation"`     // of the segment; 0: not known
	Reason     string   `json:"reason"`
	Queues     []string `json:"queues"` // that have, or may have, lost something there
}

// text is the damage on a line.
func (d *fsckDamage) text() string {
	text := d.Reason
	switch {
	case d.File != "":
		text = fmt.Sprintf("%s, offset %d, generation %d: %s", d.File, d.Offset, d.Generation, d.Reason)
	case d.Generation != 0:
		text = fmt.Sprintf("generation %d: %s", d.Generation, d.Reason)
	}
	if len(d.Queues) > 0 {
		text += "; of " + strings.Join(d.Queues, ", ")
	}
	return escapeLine(text)
}

func newFsckReport(dir string, found *broker.Inspection) *fsckReport {
	r := &fsckReport{
		StateDir: dir, Segments: found.Segments, Bytes: found.Bytes, Frames: found.Frames,
		CleanStop: found.CleanStop, Queues: len(found.Queues),
		Damage: []fsckDamage{}, ConcernedQueues: []string{}, Quarantined: found.Quarantined,
	}
	if found.At.Wall != 0 {
		r.LastRecordTime = machineTime(found.At.Wall)
	}
	for _, q := range found.Queues {
		n := countStates(q.Stats.Stats)
		r.Messages.Ready += n.Ready
		r.Messages.Delayed += n.Delayed
		r.Messages.Leased += n.Leased
		r.Messages.Buried += n.Buried
		r.MessageBytes += q.Stats.Bytes
	}
	for _, d := range found.Damage {
		file := d.File
		if file != "" {
			file = filepath.Join(dir, journalDir, file)
		}
		r.Damage = append(r.Damage, fsckDamage{File: file, Offset: d.Offset, Generation: uint64(d.Generation), Reason: d.Reason, Queues: append([]string{}, d.Queues...)})
	}
	if damage := found.DamageError(); damage != nil {
		r.Damaged = true
		r.ConcernedQueues = append(r.ConcernedQueues, damage.Queues...)
	}
	return r
}

// write writes the report for people.
func (r *fsckReport) write(w io.Writer) error {
	var b strings.Builder
	line := func(label, format string, args ...any) {
		fmt.Fprintf(&b, "%-14s", label)
		fmt.Fprintf(&b, format+"\n", args...)
	}
	line("state", "%s", escapeLine(r.StateDir))
	line("segments", "%d, %s used", r.Segments, units.FormatSize(r.Bytes))
	line("frames", "%d", r.Frames)
	line("queues", "%d", r.Queues)
	line("messages", "%d (%d ready, %d delayed, %d leased, %d buried), %s", r.Messages.total(),
		r.Messages.Ready, r.Messages.Delayed, r.Messages.Leased, r.Messages.Buried, units.FormatSize(r.MessageBytes))
	if r.CleanStop {
		line("last stop", "clean, %s", r.LastRecordTime)
	} else if r.LastRecordTime != "" {
		line("last stop", "not clean, last record %s; leased messages are ready again at the next start", r.LastRecordTime)
	}
	for _, d := range r.Damage {
		line("DAMAGE", "%s", d.text())
	}
	for _, name := range slices.Sorted(maps.Keys(r.Quarantined)) {
		line("read-only", "%s, since damage was accepted: %s", name, escapeLine(r.Quarantined[name]))
	}
	switch {
	case !r.Damaged && len(r.Quarantined) > 0:
		b.WriteString("no other damage\n")
	case !r.Damaged:
		b.WriteString("no damage\n")
	case len(r.ConcernedQueues) > 0:
		line("concerned", "%s", escapeLine(strings.Join(r.ConcernedQueues, ", ")))
	default:
		line("concerned", "which queues is not known")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// machineTime is wall time, ns since 1970, as RFC 3339 in UTC with all nine digits, so that times sort as text.
func machineTime(wall int64) string {
	return time.Unix(0, wall).UTC().Format("2006-01-02T15:04:05.000000000Z07:00")
}
