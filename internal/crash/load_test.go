//go:build linux

package crash

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipcd/ipcd/client"
	"github.com/ipcd/ipcd/internal/checker"
)

// The queues of a Load, and who is at them.
const (
	streamQueue  = "/stream"   // a Sender, and one Consume that settles by itself
	workQueue    = "/work"     // unary sends with delays, TTLs and dedup ids; receivers that ack, nack and release
	ordersQueue  = "/orders"   // unary sends; transactions that ack and send to invoices
	invoiceQueue = "/invoices" // a Consume whose handlers return
	archiveQueue = "/archive"  // nobody receives before the end: it must be copied forward
	notesQueue   = "/notes"    // in memory
	shellQueue   = "/shell"    // processes of ipcctl
)

// Load is a mixture of clients that send and receive through one socket, whatever becomes of the daemon
// behind it, and record in a checker what they attempt and what comes of it.
//
//	start -> StopSending -> Drain -> Check
type Load struct {
	t       *testing.T
	home    *home
	seed    uint64
	checker *checker.Checker
	ids     atomic.Uint64
	bytes   atomic.Int64 // of acked bodies

	failures atomic.Int64

	ctx       context.Context // of all calls; ends with the test
	sending   chan struct{}   // closed: senders end
	receiving chan struct{}   // closed: receivers end
	senders   sync.WaitGroup
	receivers sync.WaitGroup
}

// startLoad makes the queues and starts the clients. It needs a daemon that serves.
func startLoad(t *testing.T, h *home, seed uint64) *Load {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l := &Load{t: t, home: h, seed: seed, checker: checker.New(), ctx: ctx, sending: make(chan struct{}), receiving: make(chan struct{})}
	c := h.dial()
	for name, rules := range map[string]checker.QueueRules{
		streamQueue: {Ordered: true, Settled: true}, workQueue: {Settled: true}, ordersQueue: {Settled: true}, invoiceQueue: {Settled: true},
		archiveQueue: {Settled: true}, notesQueue: {Volatile: true, Settled: true}, shellQueue: {},
	} {
		l.checker.Queue(name, rules)
		create(t, c, name, func(s *client.QueueSettings) {
			s.MaxMessages, s.Overflow = 1000, client.OverflowBlock
			s.Lease = time.Hour // a lease that ends by itself would leave open what became of it
			s.DedupWindow = new(time.Hour)
			if name == archiveQueue {
				s.MaxMessages = 0
			}
			if rules.Volatile {
				s.Durability = client.DurabilityMemory
			}
		})
	}
	for i, run := range []func(*rand.Rand, *client.Client){l.streamSender, l.workSender, l.workSender, l.orderSender, l.archiveSender, l.noteSender} {
		rng, c := l.random(uint64(i)), h.dial()
		l.senders.Go(func() { run(rng, c) })
	}
	for i, run := range []func(*rand.Rand, *client.Client){l.streamConsumer, l.workReceiver, l.workReceiver, l.transactor, l.transactor, l.invoiceConsumer, l.noteReceiver} {
		rng, c := l.random(100+uint64(i)), h.dial()
		l.receivers.Go(func() { run(rng, c) })
	}
	l.senders.Go(l.shell)
	// Last, so that it comes before the clients are closed.
	t.Cleanup(func() {
		cancel()
		l.StopSending()
		l.stopReceiving()
	})
	return l
}

func (l *Load) random(stream uint64) *rand.Rand { return rand.New(rand.NewPCG(l.seed, stream)) }

// StopSending ends the senders and waits for their last outcomes. It may be called twice.
func (l *Load) StopSending() {
	if !ended(l.sending) {
		close(l.sending)
	}
	l.senders.Wait()
}

func (l *Load) stopReceiving() {
	if !ended(l.receiving) {
		close(l.receiving)
	}
	l.receivers.Wait()
}

func ended(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// pause waits a while, or until done is closed.
func pause(done chan struct{}, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}

// failuresMost is how many failures are told word for word.
const failuresMost = 30

// fail notes what no client should meet. It does not end the test: the checker has more to say.
func (l *Load) fail(what string, err error) {
	if l.ctx.Err() == nil && l.failures.Add(1) <= failuresMost {
		l.t.Errorf("seed %d: %s: %v", l.seed, what, err)
	}
}

// transient reports whether an error is one that a crash explains.
func transient(err error) bool {
	for _, e := range []error{client.ErrUnreachable, client.ErrUnhealthy, client.ErrShuttingDown, client.ErrOutcomeUnknown} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// message makes a message with an id of its own, which its body tells.
func (l *Load) message(rng *rand.Rand, queue string) (checker.Message, client.Message) {
	id := l.ids.Add(1)
	size := bodyLeast + rng.IntN(2000)
	if rng.IntN(100) == 0 {
		size = rng.IntN(16 << 10)
	}
	m := client.Message{Type: 1 + rng.Int64N(3), Priority: uint16(rng.IntN(3)), Body: bodyOf(id, size)}
	if id%5 == 0 {
		m.Headers = map[string][]byte{"id": m.Body[:idLength]}
	}
	return checker.Message{ID: id, Queue: queue, Type: m.Type, Priority: m.Priority}, m
}

const (
	idLength  = 16 // digits
	bodyLeast = idLength + 1
)

// bodyOf is a body that tells the id, and whether a byte of it was changed.
func bodyOf(id uint64, size int) []byte {
	text := fmt.Sprintf("%0*x.", idLength, id)
	return []byte(strings.Repeat(text, max(size, bodyLeast)/len(text)+1)[:max(size, bodyLeast)])
}

// idOf reads a body.
func idOf(body []byte) (uint64, error) {
	if len(body) < bodyLeast {
		return 0, fmt.Errorf("a body of %d bytes: %q", len(body), body)
	}
	id, err := strconv.ParseUint(string(body[:idLength]), 16, 64)
	if err == nil && !bytes.Equal(body, bodyOf(id, len(body))) {
		err = fmt.Errorf("message %d has been changed: %.200q", id, body)
	}
	return id, err
}

// delivered records a delivery.
func (l *Load) delivered(d *client.Delivery, since checker.Mark) *checker.Delivery {
	id, err := idOf(d.Body)
	if err != nil {
		l.fail("a delivery from "+d.Queue, err)
	}
	if want := d.Headers["id"]; id%5 == 0 && !bytes.Equal(want, d.Body[:min(idLength, len(d.Body))]) && d.Queue != shellQueue {
		l.fail("a delivery from "+d.Queue, fmt.Errorf("message %d has header %q", id, want))
	}
	return l.checker.Delivered(checker.Received{
		ID: id, Queue: d.Queue, Sequence: d.Sequence, Type: d.Type, Priority: d.Priority, Attempts: d.Attempts, Since: since,
	})
}

// outcomes turns what a client was told into what the checker takes.
func outcomes(sent []client.Sent) []checker.Outcome {
	all := make([]checker.Outcome, len(sent))
	for i, s := range sent {
		all[i] = checker.Outcome{Sequence: s.Sequence, Duplicate: s.Duplicate}
	}
	return all
}

// sent records the outcome of a batch, and reports whether it was acked.
func (l *Load) sent(b *checker.Batch, messages []client.Message, sent []client.Sent, err error) bool {
	switch {
	case err == nil:
		b.Acked(outcomes(sent))
		for i := range messages {
			l.bytes.Add(int64(len(messages[i].Body)))
		}
		return true
	case errors.Is(err, client.ErrOutcomeUnknown), errors.Is(err, client.ErrUnhealthy):
		b.Unknown()
	default:
		b.Refused()
		if !transient(err) {
			l.fail("send", err)
		}
	}
	return false
}

// settled records the outcome of a settlement.
func (l *Load) settled(s *checker.Settling, err error) {
	switch {
	case err == nil:
		s.Confirmed()
	case errors.Is(err, client.ErrStaleReceipt):
		s.Stale()
	default:
		s.Unknown()
		if !transient(err) {
			l.fail("settle", err)
		}
	}
}
