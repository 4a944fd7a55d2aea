package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ipcd/ipcd/client"
	"github.com/ipcd/ipcd/internal/limits"
)

// An import goes in batches, which are the same for the same file whenever it begins anew at one of them.
const (
	importMessages = 1024    // of a batch
	importBytes    = 4 << 20 // of their bodies, headers and ids, unless one message is larger
	// importGrace is how long the answer to a batch is awaited after an interruption.
	importGrace = 10 * time.Second
)

type importOptions struct {
	file   string
	from   importPlace
	dryRun bool
}

// importPlace is where an import goes on: with which message, counted from 1, and under which producer id.
type importPlace struct {
	message  int64
	producer string
}

func (p importPlace) String() string { return fmt.Sprintf("%d:%s", p.message, p.producer) }

func parseImportPlace(s string) (importPlace, error) {
	number, producer, _ := strings.Cut(s, ":")
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 1 || len(producer) > limits.IDLength {
		return importPlace{}, fmt.Errorf("%s is no place: write the number of a message, from 1, or what an interrupted import said", quoteArg(s))
	}
	return importPlace{n, producer}, nil
}

func newImport(a *app) *cobra.Command {
	o := importOptions{file: "-"}
	cmd := &cobra.Command{
		Use:   "import QUEUE",
		Short: "Store the messages of an export in a queue",
		Long: `Store the messages of an export, in either format, in a queue: with their times of sending, attempts, delays, ends
of TTL, and buried where they were. They get new sequences. Those that were leased become ready. Dedup ids are kept and not
looked at.

How far it has come stands in FILE.import-progress, so that the same command goes on where an import was
interrupted; what was under way then is not stored twice, if that happens within two minutes. From stdin, --from says where
to go on: an interrupted import tells.`,
		Example: `  ipcctl import /jobs -f jobs.jsonl
  ipcctl import /jobs -f jobs.ipcd --dry-run
  ipcctl export /jobs -a old.example:7070 --format compact | ipcctl import /jobs
  jq -c 'select(.ipcd_export or .type_name == "failed")' jobs.jsonl | ipcctl import /retry`,
		Args: queueArgs(1, 1),
		RunE: a.long(func(ctx context.Context, _ *cobra.Command, args []string) error {
			if o.file == "" {
				return usagef("--file: name a file, or - for stdin")
			}
			return a.importFile(ctx, queueName(args[0]), &o)
		}),
		ValidArgsFunction: a.completeQueues(1),
	}
	f := cmd.Flags()
	addText(f, &o.file, "file", "f", "FILE", "from where, - for stdin (default -)")
	addFlag(f, &o.from, "from", "PLACE", "go on there: the number of a message in the file, from 1, or what an interrupted import said", parseImportPlace)
	f.BoolVar(&o.dryRun, "dry-run", false, "only read and check the file")
	return cmd
}

// importer is one import at work.
type importer struct {
	a        *app
	queue    *client.Queue
	reader   *exportReader
	place    importPlace // of the next batch
	progress *importProgress
	stored   int64
	bytes    int64
	states   [int(client.StateBuried) + 1]int64
	unsaved  bool // the place could not be saved
}

func (a *app) importFile(ctx context.Context, name string, o *importOptions) error {
	c, err := a.dial()
	if err != nil {
		return err
	}
	in, label := a.in, "stdin"
	if o.file != "-" {
		f, err := os.Open(o.file)
		if err != nil {
			return err
		}
		defer f.Close()
		in, label = f, o.file
	}
	reader, err := newExportReader(in)
	if err != nil {
		return fmt.Errorf("%s: %w", quoteArg(label), err)
	}
	i := &importer{a: a, queue: c.Queue(name), reader: reader, place: o.from}
	if o.file != "-" && !o.dryRun {
		if i.progress, err = openImportProgress(o.file, name, &reader.header); err != nil {
			return err
		}
		if i.place == (importPlace{}) {
			i.place = i.progress.place()
		}
	}
	i.place.message = max(i.place.message, 1)
	if i.place.producer == "" {
		i.place.producer = "import-" + rand.Text()
	}
	return i.finish(i.run(ctx, o.dryRun), o, label)
}

// run stores batch after batch.
func (i *importer) run(ctx context.Context, dryRun bool) error {
	p := i.a.newProgress()
	defer p.clear()
	for i.reader.number < i.place.message-1 { // what was stored before
		if _, err := i.reader.next(); err != nil {
			if errors.Is(err, io.EOF) {
				return usagef("--from: the file has %s", count(i.reader.number, "message"))
			}
			return err
		}
	}
	var held *client.Peeked // read, and too much for the batch before
	for {
		batch, readErr := i.batch(&held)
		if len(batch) > 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
			if !dryRun {
				// The producer id must be kept before anything is stored under it, or a second run would store it again.
				if i.stored == 0 {
					if err := i.save(); err != nil {
						return err
					}
				}
				if err := i.store(ctx, batch); err != nil {
					return err
				}
			}
			i.place.message += int64(len(batch))
			i.count(batch)
			if !dryRun {
				if err := i.save(); err != nil {
					return err
				}
			}
			p.show("imported %s, %s …", count(i.stored, "message"), humanBytes(uint64(i.bytes)))
		}
		if errors.Is(readErr, io.EOF) {
			return nil
		}
		if readErr != nil {
			return readErr
		}
	}
}

// batch reads the next one. What was read is returned also where an error follows it.
func (i *importer) batch(held **client.Peeked) (batch []*client.Peeked, err error) {
	bytes := 0
	for len(batch) < importMessages {
		m := *held
		if *held = nil; m == nil {
			if m, err = i.reader.next(); err != nil {
				return batch, err
			}
		}
		if m.TruncatedFrom > 0 {
			return batch, fmt.Errorf("message %d: its body was cut to %d of %d bytes: it cannot be imported", i.reader.number, len(m.Body), m.TruncatedFrom)
		}
		size := messageBytes(&m.Message)
		if len(batch) > 0 && bytes+size > importBytes {
			*held = m
			return batch, nil
		}
		bytes += size
		batch = append(batch, m)
	}
	return batch, nil
}

// messageBytes is what a message is charged.
func messageBytes(m *client.Message) int {
	n := len(m.Body) + len(m.DedupID) + len(m.CorrelationID) + len(m.ReplyTo) + len(m.ContentType)
	for name, value := range m.Headers {
		n += len(name) + len(value)
	}
	return n
}

// store imports a batch. Its id is the number of its first message, so that a repeat is recognised. An interruption still
// waits for the answer.
func (i *importer) store(ctx context.Context, batch []*client.Peeked) error {
	callCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		grace := time.AfterFunc(importGrace, cancel)
		context.AfterFunc(callCtx, func() { grace.Stop() })
	})()
	if _, err := i.queue.ImportBatch(callCtx, i.place.producer, uint64(i.place.message), batch); err != nil {
		return i.named(err)
	}
	return nil
}

// save keeps the place beside the file, if it is one.
func (i *importer) save() error {
	if i.progress == nil {
		return nil
	}
	err := i.progress.save(i.place)
	if i.unsaved = err != nil; i.unsaved {
		return fmt.Errorf("how far the import has come cannot be kept beside its file: %w; make its directory writable, or import from stdin", err)
	}
	return nil
}

// named says which message of the file an error is about.
func (i *importer) named(err error) error {
	var e *client.Error
	if !errors.As(err, &e) || e.Index == client.Whole {
		return err
	}
	return fmt.Errorf("message %d: %w", i.place.message+int64(e.Index), withoutIndex(e))
}

func (i *importer) count(batch []*client.Peeked) {
	i.stored += int64(len(batch))
	for _, m := range batch {
		i.bytes += int64(len(m.Body))
		if int(m.State) < len(i.states) {
			i.states[m.State]++
		}
	}
}

// finish tells what was stored and, where it is not all, how to go on.
func (i *importer) finish(err error, o *importOptions, label string) error {
	done := "imported"
	if o.dryRun {
		done = "would import"
	}
	i.a.say("%s %s (%s)%s into %s", done, count(i.stored, "message"), humanBytes(uint64(i.bytes)), i.byState(), i.queue.Name())
	if err == nil {
		if i.progress != nil {
			return i.progress.remove()
		}
		return nil
	}
	var usage *usageError
	begun := i.place.message > 1 || errors.Is(err, client.ErrOutcomeUnknown)
	if errors.As(err, &usage) || o.dryRun {
		return err
	}
	if !begun {
		if i.progress != nil && i.progress.fresh {
			err = errors.Join(err, i.progress.remove())
		}
		return err
	}
	if i.progress != nil && !i.unsaved {
		i.a.say("the same command goes on with message %d of %s", i.place.message, escapeLine(label))
	} else {
		i.a.say("with the same input from stdin, --from %v goes on", i.place)
	}
	return err
}

// byState says how many were in which state, where not all were ready.
func (i *importer) byState() string {
	var parts []string
	for state, n := range i.states {
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d %v", n, client.State(state)))
		}
	}
	if len(parts) == 0 || i.states[client.StateReady] == i.stored {
		return ""
	}
	text := ": " + strings.Join(parts, ", ")
	if i.states[client.StateLeased] > 0 {
		text += " (leased ones become ready)"
	}
	return text + ","
}
