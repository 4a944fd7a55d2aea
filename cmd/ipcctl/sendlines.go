package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/ipcd/ipcd/client"
	"github.com/ipcd/ipcd/internal/limits"
)

// sendGrace is how long answers are awaited after an interruption.
const sendGrace = 3 * time.Second

// lineBatch is how many lines go out together: many, for each batch waits for the one before.
const lineBatch = 4096

// line is one line of the input, or why there are no more.
type line struct {
	number int
	body   []byte
	err    error // io.EOF at the end
}

// readLines hands over the lines of in until there are no more or ctx ends. The line feed is no part
// of a line; a last line without one counts. A line longer than most bytes ends it with the error tooLong.
func readLines(ctx context.Context, in io.Reader, most int, tooLong error, lines chan<- line) {
	defer close(lines)
	hand := func(l line) bool {
		select {
		case lines <- l:
			return true
		case <-ctx.Done():
			return false
		}
	}
	reader := bufio.NewReaderSize(in, 64<<10)
	for number := 1; ; number++ {
		body, err := readLine(reader, most)
		switch {
		case errors.Is(err, errLongLine):
			hand(line{number: number, err: tooLong})
			return
		case err == io.EOF && body == nil:
			return
		case err != nil && err != io.EOF:
			hand(line{number: number, err: fmt.Errorf("cannot read stdin: %w", err)})
			return
		}
		if !hand(line{number: number, body: body}) || err == io.EOF {
			return
		}
	}
}

var errLongLine = errors.New("the line is too long")

// readLine returns the next line in memory of its own; nil and io.EOF if there is none.
func readLine(r *bufio.Reader, most int) ([]byte, error) {
	var body []byte
	for {
		part, err := r.ReadSlice('\n')
		text := bytes.TrimSuffix(part, []byte("\n"))
		if len(body)+len(text) > most {
			return nil, errLongLine
		}
		if err == io.EOF && len(part) == 0 && body == nil {
			return nil, err
		}
		body = append(body, text...)
		if err == bufio.ErrBufferFull {
			continue
		}
		if body == nil {
			body = []byte{}
		}
		return body, err
	}
}

// pendingLine is a line on its way.
type pendingLine struct {
	number  int
	pending *client.Pending
}

// sendLines sends each line of stdin as a message like the given one, in order. It stops at the first
// failure, after which nothing is sent, and says how many were sent in any case. encode, if not nil, makes bodies of lines.
func (a *app) sendLines(ctx context.Context, c *client.Client, name string, like client.Message, encode func([]byte) ([]byte, error), output string) error {
	most := limits.MessageSizeMax
	info, err := c.GetQueue(ctx, name)
	switch {
	case err == nil && encode == nil:
		most = value(info.Settings.MaxMessageSize)
	case err != nil && !errors.Is(err, client.ErrAccessDenied): // who may only send may not look
		return err
	}

	// The pipeline outlives ctx for a moment, to learn what became of what is under way.
	senderCtx, endSender := context.WithCancel(context.WithoutCancel(ctx))
	defer endSender()
	sender, err := c.Queue(name).Sender(senderCtx, client.SenderOptions{InOrder: true, BatchMessages: lineBatch})
	if err != nil {
		return err
	}
	reading, stopReading := context.WithCancel(ctx)
	defer stopReading()
	lines := make(chan line, 256)
	tooLong := tooLarge("it is longer than the %d bytes that %s takes in one message; raise its max message size (up to %d), or send less",
		most, name, limits.MessageSizeMax)
	go readLines(reading, a.in, most, tooLong, lines)

	pending := make(chan pendingLine, limits.BatchMessages)
	answers := lineAnswers{app: a, printer: newSentPrinter(a, name, output), progress: a.newProgress()}
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		answers.collect(pending, stopReading)
	}()

	readErr := sendEach(reading, sender, like, encode, lines, pending)
	close(pending)
	if ctx.Err() != nil {
		defer time.AfterFunc(sendGrace, endSender).Stop()
	}
	_ = sender.Close() // each failure is an answer of its own
	<-answered
	answers.progress.clear()
	return answers.finish(ctx, name, readErr)
}

// sendEach hands lines to the sender until there are no more, one cannot be sent, or ctx ends.
func sendEach(ctx context.Context, sender *client.Sender, like client.Message, encode func([]byte) ([]byte, error), lines <-chan line, pending chan<- pendingLine) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case l, more := <-lines:
			if !more {
				return nil
			}
			if l.err != nil {
				return fmt.Errorf("line %d: %w", l.number, l.err)
			}
			message := like
			message.Body = l.body
			if encode != nil {
				body, err := encode(l.body)
				if err != nil {
					return fmt.Errorf("line %d: %w", l.number, err)
				}
				message.Body = body
			}
			p, err := sender.Send(ctx, message)
			if err != nil {
				if ctx.Err() != nil {
					return nil
				}
				return fmt.Errorf("line %d: %w", l.number, err)
			}
			pending <- pendingLine{l.number, p}
		}
	}
}

// lineAnswers gathers what became of lines.
type lineAnswers struct {
	app        *app
	printer    *sentPrinter
	progress   *progress
	sent       int
	duplicates int
	unknown    int   // of how many it is not known
	err        error // the first
}

// collect waits for the answers in order. The first failure stops the reading.
func (l *lineAnswers) collect(pending <-chan pendingLine, stop func()) {
	for p := range pending {
		sent, err := p.pending.Wait(context.Background())
		if err != nil {
			if errors.Is(err, client.ErrOutcomeUnknown) {
				l.unknown++
			}
			err = fmt.Errorf("line %d: %w", p.number, ofOne(err))
		} else {
			l.sent++
			for _, s := range sent {
				if s.Duplicate {
					l.duplicates++
				}
				if err == nil && l.err == nil {
					err = l.printer.print(s)
				}
			}
		}
		if err != nil && l.err == nil {
			l.err = err
			stop()
		}
		l.progress.show("sent %s …", count(l.sent, "message"))
	}
}

// finish says how many messages were sent and returns why not all.
func (l *lineAnswers) finish(ctx context.Context, name string, readErr error) error {
	err := l.err
	switch {
	case err != nil:
	case readErr != nil:
		err = readErr
	default:
		err = ctx.Err()
	}
	var broken *writeError
	if !errors.As(err, &broken) {
		if endErr := l.printer.end(); err == nil {
			err = endErr
		}
	}
	text := fmt.Sprintf("sent %s to %s", count(l.sent, "message"), name)
	if l.unknown > 0 {
		text += fmt.Sprintf("; of %d more it is not known", l.unknown)
	}
	l.app.say("%s", text)
	return err
}
