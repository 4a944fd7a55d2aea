package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ipcd/ipcd/client"
)

type subOptions struct {
	from     client.RingPosition
	types    []int64
	number   int64
	lossless bool
	format   messageFormat
}

func newRingSub(a *app) *cobra.Command {
	var o subOptions
	cmd := &cobra.Command{
		Use:     "sub RING",
		Aliases: []string{"subscribe"},
		Short:   "Subscribe: print messages as they are published",
		Long: `Print messages as they are published, until it is interrupted, -n of them were printed, or --timeout ends it
(which exits 6). Every subscriber sees every message; nothing is taken away from anybody.

Messages are in order within a lane, and sequences are those of a lane. Who is slower than the producers of a ring
that overwrites loses messages: stderr says how many, and json has the field lost in the message that follows
the gap. --lossless lets the producers of a lossless ring wait instead.

It goes through the daemon, and ends with exit 4 when that stops or restarts. Programs that consume in shared memory
go on.`,
		Example: `  ipcctl ring sub /ticks
  ipcctl ring sub /ticks --from oldest -n 10 -o json
  ipcctl ring sub /ticks --from 4711 --type 1,2 -o jsonl
  ipcctl ring sub /frames -n 1 -o raw --delimiter '' > frame.bin
  ipcctl ring sub /trades --lossless -o hex`,
		Args: ringArgs(1, 1),
		RunE: a.long(func(ctx context.Context, cmd *cobra.Command, args []string) error {
			if err := o.format.check(cmd); err != nil {
				return err
			}
			return a.subscribe(ctx, queueName(args[0]), &o)
		}),
		ValidArgsFunction: a.completeRings(1),
	}
	f := cmd.Flags()
	addFlag(f, &o.from, "from", "POSITION", "where to begin: newest (default), oldest, or a sequence such as 4711", parseRingPosition)
	completeWords(cmd, "from", []string{"newest", "oldest"})
	f.VarP(&flagValue[[]int64]{target: &o.types, parse: parseRingTypes, kind: "N,..."}, "type", "t", "only these types, such as 7 or 1,2,3")
	f.VarP(&flagValue[int64]{target: &o.number, parse: positive[int64](parseCount), kind: "N"}, "number", "n", "end after so many messages (default: never)")
	f.BoolVar(&o.lossless, "lossless", false, "let the producers of a lossless ring wait for this subscriber")
	o.format.add(cmd)
	return cmd
}

func parseRingPosition(s string) (client.RingPosition, error) {
	p, err := client.ParseRingPosition(s)
	if err != nil {
		return p, fmt.Errorf("%s is no position: newest, oldest, or a sequence such as 4711%s", quoteArg(s), didYouMean(s, []string{"newest", "oldest"}))
	}
	return p, nil
}

// parseRingType reads the type of a message in a ring, which has no names for types.
func parseRingType(s string) (int64, error) {
	t, err := strconv.ParseInt(s, 10, 64)
	if err != nil || t <= 0 || s[0] == '+' {
		return 0, fmt.Errorf("%s is no type: write 1 to %d", quoteArg(s), int64(math.MaxInt64))
	}
	return t, nil
}

func parseRingTypes(s string) ([]int64, error) {
	var types []int64
	for word := range strings.SplitSeq(s, ",") {
		t, err := parseRingType(strings.TrimSpace(word))
		if err != nil {
			return nil, err
		}
		types = append(types, t)
	}
	return types, nil
}

func (a *app) subscribe(ctx context.Context, name string, o *subOptions) error {
	c, err := a.dial()
	if err != nil {
		return err
	}
	s := subscriber{a: a, ring: name, printer: a.newPrinter(&o.format), losses: &losses{a: a, ring: name}}
	err = s.loop(ctx, c, o)
	s.losses.end()
	var broken *writeError
	if !errors.As(err, &broken) {
		if endErr := s.printer.end(); err == nil {
			err = endErr
		}
	}
	return err
}

// subscriber is one sub at work.
type subscriber struct {
	a       *app
	ring    string
	printer *printer
	losses  *losses
	printed int64
}

// loop prints what comes until there is enough, ctx ends, or nothing more comes.
func (s *subscriber) loop(ctx context.Context, c *client.Client, o *subOptions) error {
	options := client.RingSubscribeOptions{From: o.from, Types: o.types, Lossless: o.lossless}
	if s.a.eTTY {
		options.OnOpen = func() { s.a.say("subscribed to %s; Ctrl-C ends it", escapeLine(s.ring)) }
	}
	corrupt := 0
	for d, err := range c.Ring(s.ring).Subscribe(ctx, options) {
		switch {
		case errors.Is(err, client.ErrRingCorrupt): // of one lane; the others are read on
			s.a.report(fmt.Errorf("lane %d: %w", d.LaneID, err), 0)
			corrupt = exitCode(err)
			continue
		case errors.Is(err, client.ErrTimedOut): // the daemon's clock was first
			return s.timedOut()
		case err != nil:
			return err
		}
		s.losses.add(&d)
		if err := s.print(&d); err != nil {
			return err
		}
		if s.printed++; s.printed == o.number {
			break
		}
	}
	enough := o.number > 0 && s.printed == o.number
	if !enough && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return s.timedOut()
	}
	if corrupt > 0 {
		return reported(corrupt)
	}
	return nil
}

func (s *subscriber) timedOut() error {
	return fmt.Errorf("after %s of %s: %w", count(s.printed, "message"), escapeLine(s.ring), context.DeadlineExceeded)
}

// ringMessageView is a message of a ring as json and jsonl show it. Either body or body_base64 is there, always.
type ringMessageView struct {
	Ring        string  `json:"ring"`
	LaneID      uint64  `json:"lane_id"`
	Sequence    uint64  `json:"sequence"`
	Type        int64   `json:"type"`
	Body        *string `json:"body,omitempty"`         // where it is UTF-8
	BodyBase64  *string `json:"body_base64,omitempty"`  // where it is not
	PublishTime string  `json:"publish_time,omitempty"` // absent: its producer tells no times
	Lost        uint64  `json:"lost"`                   // messages of the lane that were lost just before it
}

func (s *subscriber) view(d *client.RingDelivery) any {
	v := ringMessageView{Ring: s.ring, LaneID: d.LaneID, Sequence: d.Sequence, Type: d.Type, PublishTime: timeOrNone(d.PublishedAt), Lost: d.Lost}
	text, isText := textOrBase64(d.Payload)
	if isText {
		v.Body = &text
	} else {
		v.BodyBase64 = &text
	}
	return v
}

func (s *subscriber) print(d *client.RingDelivery) error {
	return s.printer.write(d.Payload, len(d.Payload), func() any { return s.view(d) }, func() { s.writeHead(d) })
}

// writeHead writes the line about a message.
func (s *subscriber) writeHead(d *client.RingDelivery) {
	parts := []string{fmt.Sprintf("#%d", d.Sequence), fmt.Sprintf("lane %d", d.LaneID), fmt.Sprintf("type %d", d.Type)}
	if now := time.Now(); !d.PublishedAt.IsZero() {
		parts = append(parts, fmt.Sprintf("published %s (%s ago)", clock(d.PublishedAt, now), humanDuration(max(0, now.Sub(d.PublishedAt)))))
	}
	if d.Lost > 0 {
		parts = append(parts, fmt.Sprintf("%d lost before it", d.Lost))
	}
	s.printer.buffer.WriteString(s.a.bold(strings.Join(parts, "  ")) + "\n")
}
