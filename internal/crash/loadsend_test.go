//go:build linux

package crash

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/ipcd/ipcd/client"
	"github.com/ipcd/ipcd/internal/checker"
)

// batch makes a few messages.
func (l *Load) batch(rng *rand.Rand, queue string, most int) ([]checker.Message, []client.Message) {
	n := 1 + rng.IntN(most)
	intents, messages := make([]checker.Message, n), make([]client.Message, n)
	for i := range n {
		intents[i], messages[i] = l.message(rng, queue)
	}
	return intents, messages
}

// streamSender sends without waiting for each answer, over one Sender as long as that lasts.
func (l *Load) streamSender(rng *rand.Rand, c *client.Client) {
	type underWay struct {
		batch    *checker.Batch
		messages []client.Message
		pending  *client.Pending
	}
	answers := make(chan underWay, 1000)
	l.senders.Go(func() {
		for u := range answers {
			sent, err := u.pending.Wait(l.ctx)
			l.sent(u.batch, u.messages, sent, err)
		}
	})
	defer close(answers)
	for !ended(l.sending) {
		sender, err := c.Queue(streamQueue).Sender(l.ctx, client.SenderOptions{MaxMessages: 500, BatchMessages: 64})
		if err != nil {
			if !transient(err) {
				l.fail("open a sender", err)
				return
			}
			pause(l.sending, 20*time.Millisecond)
			continue
		}
		for !ended(l.sending) {
			intents, messages := l.batch(rng, streamQueue, 3)
			b := l.checker.Send(intents...)
			pending, err := sender.Send(l.ctx, messages...)
			if err != nil {
				b.Refused() // it was not handed over
				if !transient(err) {
					l.fail("hand over to a sender", err)
					return
				}
				break
			}
			answers <- underWay{b, messages, pending}
		}
		_ = sender.Close() // each send has its outcome
	}
}

// workSender sends batches with everything a message may have. Messages with a dedup id it sends until
// they are acked, and sometimes again, at once or much later, each time as if for the first time.
func (l *Load) workSender(rng *rand.Rand, c *client.Client) {
	q := c.Queue(workQueue)
	var used []string // dedup ids that were acked
	for !ended(l.sending) {
		intents, messages := l.batch(rng, workQueue, 5)
		for i := range messages {
			switch rng.IntN(6) {
			case 0:
				messages[i].TTL = time.Hour
			case 1:
				messages[i].Delay = time.Duration(1+rng.IntN(500)) * time.Millisecond
				intents[i].Delayed = true
			}
		}
		if rng.IntN(3) > 0 {
			l.sendTo(q, intents, messages)
			continue
		}
		intents, messages = intents[:1], messages[:1]
		id := fmt.Sprintf("once-%d", intents[0].ID)
		if len(used) > 0 && rng.IntN(2) == 0 {
			id = used[rng.IntN(len(used))]
		}
		more := rng.IntN(3)
		for !ended(l.sending) {
			intents[0].DedupID, messages[0].DedupID = id, id
			if l.sendTo(q, intents, messages) {
				used = append(used, id)
				if more == 0 {
					break
				}
				more--
			}
			intents[0], messages[0] = l.message(rng, workQueue)
		}
	}
}

// sendTo sends one batch and records its outcome.
func (l *Load) sendTo(q *client.Queue, intents []checker.Message, messages []client.Message) bool {
	b := l.checker.Send(intents...)
	sent, err := q.Send(l.ctx, messages...)
	if !l.sent(b, messages, sent, err) {
		pause(l.sending, 5*time.Millisecond)
		return false
	}
	return true
}

// simpleSender sends batches to a queue, with a pause between.
func (l *Load) simpleSender(rng *rand.Rand, c *client.Client, queue string, most int, between time.Duration) {
	for !ended(l.sending) {
		intents, messages := l.batch(rng, queue, most)
		l.sendTo(c.Queue(queue), intents, messages)
		pause(l.sending, between)
	}
}

func (l *Load) orderSender(rng *rand.Rand, c *client.Client) {
	l.simpleSender(rng, c, ordersQueue, 4, time.Millisecond)
}

func (l *Load) archiveSender(rng *rand.Rand, c *client.Client) {
	l.simpleSender(rng, c, archiveQueue, 2, 5*time.Millisecond)
}

func (l *Load) noteSender(rng *rand.Rand, c *client.Client) {
	l.simpleSender(rng, c, notesQueue, 3, 2*time.Millisecond)
}

// shell sends and receives with processes of ipcctl.
func (l *Load) shell() {
	rng := l.random(200)
	for !ended(l.sending) {
		l.shellSend(rng)
		l.shellReceive()
		pause(l.sending, 100*time.Millisecond)
	}
}

func (l *Load) shellSend(rng *rand.Rand) {
	intent, m := l.message(rng, shellQueue)
	b := l.checker.Send(intent)
	r, err := l.home.run(l.ctx, "ipcctl", "send", shellQueue, "--type", strconv.FormatInt(m.Type, 10), "--priority", strconv.Itoa(int(m.Priority)), string(m.Body))
	sequence, parseErr := strconv.ParseUint(trimmed(r.out), 10, 64)
	switch {
	case err != nil:
		l.fail("ipcctl send", err)
		b.Unknown()
	case r.exit == 0 && parseErr == nil:
		b.Acked([]checker.Outcome{{Sequence: sequence}})
	case r.exit == 0:
		l.fail("ipcctl send", fmt.Errorf("it says %q", r.out))
		b.Unknown()
	default:
		b.Unknown() // the exit code does not tell a lost answer from a daemon that is away
	}
}

func (l *Load) shellReceive() {
	since := l.checker.Mark()
	r, err := l.home.run(l.ctx, "ipcctl", "recv", shellQueue, "-n", "10", "-o", "json")
	if err != nil {
		l.fail("ipcctl recv", err)
	}
	if r.exit != 0 {
		return
	}
	var document struct {
		Messages []struct {
			Sequence uint64
			Type     int64
			Priority uint16
			Body     string
			Attempts int
			Receipt  string
		}
	}
	if err := json.Unmarshal([]byte(r.out), &document); err != nil {
		l.fail("ipcctl recv", fmt.Errorf("%w: %s", err, r.out))
		return
	}
	for _, m := range document.Messages {
		id, err := idOf([]byte(m.Body))
		if err != nil {
			l.fail("ipcctl recv", err)
			continue
		}
		d := l.checker.Delivered(checker.Received{ID: id, Queue: shellQueue, Sequence: m.Sequence, Type: m.Type, Priority: m.Priority, Attempts: m.Attempts, Since: since})
		s := d.Settle(checker.Ack)
		r, err := l.home.run(l.ctx, "ipcctl", "ack", m.Receipt)
		if err == nil && r.exit == 0 {
			s.Confirmed()
		} else {
			s.Unknown()
		}
	}
}
