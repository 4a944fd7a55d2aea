package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ipcd/ipcd/client"
	"github.com/ipcd/ipcd/internal/limits"
)

const (
	// publishAtOnce bounds the lines of one request, and publishBytes their bytes: enough that the way to the daemon
	// and back hardly counts.
	publishAtOnce = 4096
	publishBytes  = 4 << 20
	// publishParts is how many requests fill a lane of a lossless ring, or more. A request that waits for a consumer
	// when time is over may be published in part, and nobody learns in which: so it has few lines.
	publishParts = 64
	frameBytes   = 32 // of a message in a lane besides its payload
	// timeoutGrace is how long answers are awaited once --timeout is over.
	timeoutGrace = 100 * time.Millisecond
)

// publishLines publishes each line of stdin. It stops at the first failure, and says how many were published
// in any case.
func (a *app) publishLines(ctx context.Context, name string, o *pubOptions) error {
	c, err := a.dial()
	if err != nil {
		return err
	}
	most, atOnce := limits.BatchBytes, publishBytes
	info, err := c.GetRing(ctx, name)
	switch {
	case err == nil:
		most = int(min(info.Settings.MaxMessageBytes, limits.BatchBytes))
		if info.Settings.Policy == client.RingLossless {
			atOnce = int(min(info.Settings.CapacityBytes/publishParts, publishBytes))
		}
	case !errors.Is(err, client.ErrAccessDenied): // who may only produce may not look
		return err
	}

	// The publisher outlives ctx for a moment, to learn what became of what is under way.
	publishCtx, endPublish := context.WithCancel(context.WithoutCancel(ctx))
	defer endPublish()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(sendGrace, endPublish) })()
	if deadline, is := ctx.Deadline(); is {
		var end context.CancelFunc
		publishCtx, end = context.WithDeadline(publishCtx, deadline.Add(timeoutGrace))
		defer end()
	}
	publisher, err := c.Ring(name).Publisher(publishCtx)
	if err != nil {
		return err
	}
	defer publisher.Close()

	reading, stopReading := context.WithCancel(ctx)
	defer stopReading()
	lines := make(chan line, publishAtOnce)
	tooLong := tooLarge("it is longer than the %d bytes that %s takes in one message; create a ring with a larger --max-message, or publish less", most, name)
	go readLines(reading, a.in, most, tooLong, lines)

	p := linePublisher{publisher: publisher, typ: o.typ, atOnce: atOnce, printer: newPubPrinter(a, name, o.output), progress: a.newProgress()}
	err = p.publishAll(ctx, publishCtx, lines)
	p.progress.clear()
	var broken *writeError
	if !errors.As(err, &broken) {
		if endErr := p.printer.end(); err == nil {
			err = endErr
		}
	}
	atLeast := ""
	if errors.Is(err, client.ErrOutcomeUnknown) {
		atLeast = "at least "
	}
	a.say("published %s%s to %s", atLeast, count(p.published, "message"), escapeLine(name))
	return err
}

// linePublisher publishes lines, many at once.
type linePublisher struct {
	publisher *client.RingPublisher
	typ       int64
	atOnce    int // bytes of one request, or one line more
	printer   *pubPrinter
	progress  *progress
	published int

	batch []client.RingMessage
	first int // the number of the batch's first line
}

// publishAll publishes lines until there are no more, one fails, or ctx ends; publishCtx bounds the wait for
// answers.
func (p *linePublisher) publishAll(ctx, publishCtx context.Context, lines <-chan line) error {
	for {
		inputErr, more := p.gather(ctx, lines)
		if len(p.batch) > 0 {
			if err := p.publish(publishCtx); err != nil {
				return err
			}
		}
		switch {
		case inputErr != nil:
			return inputErr
		case ctx.Err() != nil:
			return ctx.Err()
		case !more:
			return nil
		}
	}
}

// gather waits for a line and takes those that are there besides, for one request.
func (p *linePublisher) gather(ctx context.Context, lines <-chan line) (err error, more bool) {
	p.batch = p.batch[:0]
	size := 0
	for len(p.batch) < publishAtOnce && size < p.atOnce {
		var l line
		if len(p.batch) == 0 {
			select {
			case <-ctx.Done():
				return nil, false
			case l, more = <-lines:
			}
		} else {
			select {
			case l, more = <-lines:
			default: // the input pauses
				return nil, true
			}
		}
		switch {
		case !more:
			return nil, false
		case l.err != nil:
			return fmt.Errorf("line %d: %w", l.number, l.err), false
		}
		if len(p.batch) == 0 {
			p.first = l.number
		}
		p.batch = append(p.batch, client.RingMessage{Type: p.typ, Payload: l.body})
		size += frameBytes + len(l.body)
	}
	return nil, true
}

// publish publishes the batch and tells of it.
func (p *linePublisher) publish(ctx context.Context) error {
	published, err := p.publisher.Publish(ctx, p.batch...)
	if err != nil {
		return p.explain(err)
	}
	p.published += published.Count
	p.progress.show("published %s …", count(p.published, "message"))
	return p.printer.print(published)
}

// explain says which lines an error is about.
func (p *linePublisher) explain(err error) error {
	last := p.first + len(p.batch) - 1
	var e *client.Error
	switch {
	case errors.As(err, &e) && e.Index >= 0 && e.Index < len(p.batch):
		alone := *e
		alone.Index = client.Whole
		return fmt.Errorf("line %d: %w", p.first+e.Index, &alone)
	case last > p.first:
		return fmt.Errorf("lines %d to %d: %w", p.first, last, err)
	}
	return fmt.Errorf("line %d: %w", p.first, err)
}
