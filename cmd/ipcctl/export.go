package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ipcd/ipcd/client"
)

type exportOptions struct {
	filter filterFlags
	file   string
	format string
	resume bool
	force  bool
}

func newExport(a *app) *cobra.Command {
	o := exportOptions{file: "-"}
	cmd := &cobra.Command{
		Use:   "export QUEUE",
		Short: "Write a queue's messages to a file or stdout, without changing anything",
		Long: `Write a queue's messages, in the order of their sequences: all of them, or those that the filters leave. Nothing is
changed in the queue. What arrives meanwhile is written too, unless it is consumed before its turn.

jsonl is a line that describes the export, and then a line for each message as peek -o jsonl writes it. compact is
smaller, and checked for damage: compressed binary records with checksums. ipcctl import reads both.

FILE is made readable for you alone. An export that was interrupted is continued with --resume, behind the last
message that is whole in FILE.`,
		Example: `  ipcctl export /jobs -f jobs.jsonl
  ipcctl export /jobs -f jobs.ipcd --format compact
  ipcctl export /jobs -f jobs.ipcd --resume
  ipcctl export /jobs --state buried --type failed | jq -r 'select(.body).body'`,
		Args: queueArgs(1, 1),
		RunE: a.long(func(ctx context.Context, cmd *cobra.Command, args []string) error {
			switch {
			case o.file == "":
				return usagef("--file: name a file, or - for stdout")
			case o.resume && o.file == "-":
				return usagef("--resume needs --file: it continues what is in a file")
			case o.resume && o.force:
				return usagef("--resume and --force exclude each other: one continues the file, the other replaces it")
			case o.file == "-" && o.format == "compact" && a.outTTY:
				return usagef("the compact format is nothing for a terminal: name a file with --file")
			}
			return a.export(ctx, queueName(args[0]), &o, cmd.Flags().Changed("format"))
		}),
		ValidArgsFunction: a.completeQueues(1),
	}
	f := cmd.Flags()
	addText(f, &o.file, "file", "f", "FILE", "where to, - for stdout (default -)")
	formats := []string{"jsonl", "compact"}
	o.format = formats[0]
	addFlag(f, &o.format, "format", "FORMAT", "jsonl (default) or compact", oneOf("format", formats, formats...))
	completeWords(cmd, "format", formats)
	f.BoolVar(&o.resume, "resume", false, "continue an export that was interrupted")
	f.BoolVar(&o.force, "force", false, "replace FILE where it exists")
	o.filter.add(cmd, a)
	o.filter.addStates(cmd, "only these states: ready, delayed, leased, buried or all (default)")
	return cmd
}

// exporter is one export at work.
type exporter struct {
	a       *app
	options *exportOptions
	w       exportWriter
	file    *os.File // nil: stdout
	already int64    // messages that were in the file
	last    uint64   // the sequence of the last of them, then of the last written
	written int64
	bytes   int64 // of their bodies
}

func (a *app) export(ctx context.Context, name string, o *exportOptions, formatGiven bool) (err error) {
	c, err := a.dial()
	if err != nil {
		return err
	}
	filter, err := o.filter.filter(ctx, c, name)
	if err != nil {
		return err
	}
	if filter.States == nil {
		filter.States = allStates
	}
	info, err := c.GetQueue(ctx, name)
	if err != nil {
		return err
	}
	header := exportHeader{Version: exportVersion, Queue: info.Name, QueueID: info.ID, ExportTime: machineTime(time.Now()), Filter: o.filter.text(),
		Settings: viewQueue(info).Settings}
	e := &exporter{a: a, options: o}
	if o.file == "-" {
		e.w = exportWriterOf(o.format, a.out)
		err = e.w.begin(header)
	} else {
		err = e.open(header, formatGiven)
	}
	if err != nil {
		return err
	}
	if e.file != nil {
		defer func() { err = errors.Join(err, e.file.Close()) }()
	}
	filter.MinSequence = max(filter.MinSequence, e.last+1)
	err = e.write(ctx, c.Queue(name), filter, info)
	return e.finish(err, name)
}

func exportWriterOf(format string, w io.Writer) exportWriter {
	if format == "compact" {
		return newCompactWriter(w)
	}
	return newJSONLWriter(w)
}

// open makes the file, or finds the place in it at which the export goes on.
func (e *exporter) open(header exportHeader, formatGiven bool) error {
	o := e.options
	flags := os.O_RDWR | os.O_CREATE
	switch {
	case o.force:
		flags |= os.O_TRUNC
	case !o.resume:
		flags |= os.O_EXCL
	}
	f, err := os.OpenFile(o.file, flags, 0o600) // whoever reads it reads the queue
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s exists: --resume continues an export, --force replaces the file", quoteArg(o.file))
	}
	if err != nil {
		return err
	}
	if o.resume {
		err = e.resume(f, header, formatGiven)
	}
	if err == nil && e.w == nil { // it is new, or empty
		e.w = exportWriterOf(o.format, f)
		if err = e.w.begin(header); err == nil {
			err = e.w.flush()
		}
	}
	if err != nil {
		_ = f.Close() // the error that matters is known
		return fmt.Errorf("%s: %w", quoteArg(o.file), err)
	}
	e.file = f
	return nil
}

// resume reads what is in the file, and cuts off what is not whole.
func (e *exporter) resume(f *os.File, header exportHeader, formatGiven bool) error {
	info, err := f.Stat()
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return errors.New("it is no regular file: it cannot be continued")
	case info.Size() == 0:
		return nil
	}
	r, err := newExportReader(f)
	if err != nil {
		if errors.Is(err, errTorn) {
			return errors.New("not even its header is whole: --force begins anew")
		}
		return err
	}
	switch {
	case r.header.Queue != header.Queue || r.header.QueueID != header.QueueID:
		return fmt.Errorf("it is an export of another queue: %s with id %d, not %s with id %d", escapeLine(r.header.Queue), r.header.QueueID, header.Queue, header.QueueID)
	case r.header.Filter != header.Filter:
		return fmt.Errorf("it is an export with other filters: give those again (%s)", escapeLine(orNone(r.header.Filter)))
	case formatGiven && r.format != e.options.format:
		return fmt.Errorf("its format is %s: leave out --format", r.format)
	}
	p := e.a.newProgress()
	defer p.clear()
	for err == nil {
		var m *client.Peeked
		if m, err = r.next(); err == nil {
			e.last = m.Sequence
			p.show("read %s …", count(r.number, "message"))
		}
	}
	if !errors.Is(err, io.EOF) && !errors.Is(err, errTorn) {
		return err
	}
	e.already = r.number
	if err := f.Truncate(r.whole); err != nil {
		return err
	}
	if _, err := f.Seek(r.whole, io.SeekStart); err != nil {
		return err
	}
	if r.unended {
		if _, err := f.WriteString("\n"); err != nil {
			return err
		}
	}
	e.w = exportWriterOf(r.format, f)
	return nil
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// write writes the queue's messages until there are no more.
func (e *exporter) write(ctx context.Context, q *client.Queue, filter client.Filter, info client.QueueInfo) error {
	names := typeNamesByNumber(info.Settings.TypeNames)
	p := e.a.newProgress()
	defer p.clear()
	for m, err := range q.Peek(ctx, client.PeekOptions{Filter: filter, Order: client.BySequence}) {
		if err != nil {
			return err
		}
		if err := e.w.add(m, names); err != nil {
			return e.outputError(err)
		}
		e.written++
		e.bytes += int64(len(m.Body))
		e.last = m.Sequence
		p.show("exported %d of about %s, %s …", e.already+e.written, count(info.Stats.Messages(), "message"), humanBytes(uint64(e.bytes)))
	}
	return ctx.Err()
}

// finish makes whole what was written, and tells how much that is.
func (e *exporter) finish(err error, name string) error {
	if flushErr := e.w.flush(); flushErr != nil && err == nil {
		err = e.outputError(flushErr)
	}
	if e.file != nil {
		if syncErr := e.file.Sync(); syncErr != nil && err == nil {
			err = syncErr
		}
	}
	text := fmt.Sprintf("exported %s (%s) from %s", count(e.written, "message"), humanBytes(uint64(e.bytes)), name)
	if e.already > 0 {
		text += fmt.Sprintf(", after %d that were there", e.already)
	}
	var broken *writeError
	switch {
	case errors.As(err, &broken): // how much of it arrived is not known
		return err
	case err != nil && e.file != nil:
		text += "; --resume goes on from there"
	}
	e.a.say("%s", text)
	return err
}

func (e *exporter) outputError(err error) error {
	if e.file == nil {
		return outputError(err)
	}
	return err
}

// text is what the flags ask for, "" for everything. The same flags give the same text.
func (f *filterFlags) text() string {
	var parts []string
	add := func(name, value string) { parts = append(parts, "--"+name+" "+value) }
	if f.selector != "" {
		add("type", f.selector)
	}
	if f.states != nil && len(f.states) < len(allStates) {
		var words []string
		for _, s := range f.states {
			words = append(words, s.String())
		}
		add("state", strings.Join(words, ","))
	}
	if f.sequences != (sequences{}) {
		add("seq", fmt.Sprintf("%d-%d", f.sequences.first, f.sequences.last))
	}
	if f.olderThan > 0 {
		add("older-than", f.olderThan.String())
	}
	for _, h := range f.headers {
		add("header", h.key+"="+h.value)
	}
	return strings.Join(parts, " ")
}
