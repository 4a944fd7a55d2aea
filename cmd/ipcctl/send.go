package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/ipcd/ipcd/client"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
)

type sendOptions struct {
	message client.Message
	typ     string
	headers []header
	lines   bool
	json    bool
	output  string
}

func newSend(a *app) *cobra.Command {
	var o sendOptions
	cmd := &cobra.Command{
		Use:   "send QUEUE PAYLOAD|-",
		Short: "Send messages",
		Long: `Send a message, or with --lines one for each line of stdin, and print its sequence. With - for the
payload the body is read from stdin as it is.

--lines streams: it does not wait for each answer, and sends lines that have gathered together. It stops at the first
line that is refused: those before it are sent, those after it are not, and it says how many were. --timeout also bounds how long a full queue that blocks may keep it waiting.`,
		Example: `  ipcctl send /jobs 'hello'
  ipcctl send /jobs --type created --priority 3 --header trace=abc '{"id":1}'
  ipcctl send /jobs --delay 5s --ttl 1h --dedup-id order-1 'pay'
  ipcctl send /orders --type created --json '{"id":"17","state":"OPEN"}'
  ipcctl send /images --content-type image/png - < cat.png
  journalctl -f | ipcctl send /log --lines`,
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) == 0:
				return usagef("name a queue, as in: ipcctl send /jobs 'hello'; see ipcctl send --help")
			case o.lines && len(args) == 2 && args[1] != "-", o.lines && len(args) > 2:
				return usagef("--lines reads the messages from stdin, %s is too much", quoteArg(args[1]))
			case o.lines:
				return nil
			case len(args) == 1:
				return usagef("give a payload, or - to read it from stdin, or --lines for one message a line")
			case len(args) > 2:
				return usagef("one payload at a time, %s is too much: quote a payload with spaces, or use --lines", quoteArg(args[2]))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			f := func(ctx context.Context, cmd *cobra.Command, args []string) error { return a.send(ctx, cmd, args, &o) }
			if o.lines {
				return a.long(f)(cmd, args)
			}
			return a.bounded(f)(cmd, args)
		},
		ValidArgsFunction: a.completeQueues(1),
	}
	f, m := cmd.Flags(), &o.message
	addText(f, &o.typ, "type", "t", "TYPE", "its TYPE: a number or the queue's name for it (default 1)")
	completeTypes(cmd, a)
	f.VarP(&flagValue[uint16]{target: &m.Priority, parse: parseNumber[uint16](0, limits.PriorityMax), kind: "N"}, "priority", "p",
		"0 (default) to 32767, higher first")
	addList(f, &o.headers, "header", "NAME=VALUE", "a header (repeat for more)", parseHeader)
	addFlag(f, &m.TTL, "ttl", "DURATION", "drop it when it was not consumed this long after it was sent", positiveDuration)
	addFlag(f, &m.Delay, "delay", "DURATION", "deliver it only after this long", parseDuration)
	addFlag(f, &m.NotBefore, "not-before", "TIME", "deliver it only from this time on: 2026-01-31T15:04:05Z or 2026-01-31 15:04", parseTime)
	addText(f, &m.DedupID, "dedup-id", "", "ID", "store it only if none with this ID was sent within the queue's window")
	addText(f, &m.CorrelationID, "correlation-id", "", "ID", "an ID for the programs' own use")
	addText(f, &m.ReplyTo, "reply-to", "", "QUEUE", "the QUEUE in which an answer is expected")
	addText(f, &m.ContentType, "content-type", "", "TYPE", "the media TYPE of the body")
	f.BoolVar(&o.json, "json", false, "the payload, or each line, is JSON: encode it as the queue's schema says")
	f.BoolVar(&o.lines, "lines", false, "send each line of stdin as a message")
	addOutput(cmd, &o.output, "text", "json", "jsonl")
	return cmd
}

func (a *app) send(ctx context.Context, cmd *cobra.Command, args []string, o *sendOptions) error {
	c, err := a.dial()
	if err != nil {
		return err
	}
	switch changed := cmd.Flags().Changed; {
	case o.lines && changed("dedup-id"):
		return usagef("--dedup-id and --lines exclude each other: every line would have the same id")
	case changed("delay") && changed("not-before"):
		return usagef("--delay and --not-before exclude each other")
	}
	name := queueName(args[0])
	message := o.message
	message.Headers = headerMap(o.headers)
	if cmd.Flags().Changed("type") {
		if message.Type, err = resolveType(ctx, c, name, o.typ); err != nil {
			return err
		}
	}
	var encode func([]byte) ([]byte, error)
	if o.json {
		if encode, err = a.encoder(ctx, c, name, &message.Type); err != nil {
			return err
		}
	}
	if o.lines {
		return a.sendLines(ctx, c, name, message, encode, o.output)
	}
	if message.Body, err = a.payload(ctx, args[1]); err != nil {
		return err
	}
	if o.json {
		if message.Body, err = encode(message.Body); err != nil {
			return err
		}
	}
	sent, err := c.Queue(name).Send(ctx, message)
	if err != nil {
		return ofOne(err)
	}
	p := newSentPrinter(a, name, o.output)
	for _, s := range sent {
		if s.Duplicate {
			a.say("a duplicate: stored before, with sequence %d", s.Sequence)
		}
		if o.output == "text" {
			err = a.print(strconv.FormatUint(s.Sequence, 10) + "\n")
		} else {
			err = p.print(s)
		}
		if err != nil {
			return err
		}
	}
	return p.end()
}

// payload returns the body that an argument stands for: itself, or stdin.
func (a *app) payload(ctx context.Context, arg string) ([]byte, error) {
	if arg != "-" {
		return []byte(arg), nil
	}
	type result struct {
		body []byte
		err  error
	}
	read := make(chan result, 1)
	go func() { // a read from a terminal or pipe cannot be interrupted; the process ends soon
		body, err := io.ReadAll(io.LimitReader(a.in, limits.MessageSizeMax+1))
		read <- result{body, err}
	}()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case r := <-read:
		if r.err != nil {
			return nil, fmt.Errorf("cannot read stdin: %w", r.err)
		}
		if len(r.body) > limits.MessageSizeMax {
			return nil, tooLarge("stdin has more than the %d bytes that a message may have; send it in parts, or with --lines", limits.MessageSizeMax)
		}
		return r.body, nil
	}
}

// ofOne takes the index out of the error of a batch of one message.
func ofOne(err error) error {
	var e *client.Error
	if !errors.As(err, &e) || e.Index != 0 {
		return err
	}
	return withoutIndex(e)
}

func withoutIndex(e *client.Error) *client.Error {
	alone := *e
	alone.Index = client.Whole
	return &alone
}

func tooLarge(format string, args ...any) error {
	return &client.Error{Reason: string(reason.MessageTooLarge), Message: fmt.Sprintf(format, args...), Index: client.Whole}
}

// sentView is a message that was sent, as json and jsonl show it.
type sentView struct {
	Queue     string `json:"queue"`
	Sequence  uint64 `json:"sequence"`
	Duplicate bool   `json:"duplicate"`
	SendTime  string `json:"send_time"`
}

// sentPrinter writes what was sent as json or jsonl; as text it writes nothing.
type sentPrinter struct {
	p     *printer
	queue string
}

func newSentPrinter(a *app, queue, output string) *sentPrinter {
	return &sentPrinter{a.newPrinter(&messageFormat{output: output}), queue}
}

func (s *sentPrinter) print(sent client.Sent) error {
	return s.p.record(sentView{s.queue, sent.Sequence, sent.Duplicate, machineTime(sent.SentAt)})
}

func (s *sentPrinter) end() error { return s.p.end() }
