//go:build linux

package crash

import (
	"errors"
	"fmt"
	"strings"

	"github.com/ipcd/ipcd/client"
	"github.com/ipcd/ipcd/internal/checker"
)

// loadQueues are all queues of a Load.
var loadQueues = []string{streamQueue, workQueue, ordersQueue, invoiceQueue, archiveQueue, notesQueue, shellQueue}

// Drain lets the receivers finish, and then receives what nobody has received until no queue holds a
// message. Senders are stopped, and the daemon serves.
func (l *Load) Drain() {
	t := l.t
	t.Helper()
	c := l.home.dial()
	l.drainQueue(c, archiveQueue)
	l.drainQueue(c, shellQueue)
	state := ""
	eventually(t, "the receivers empty the queues", func() bool {
		total := int64(0)
		state, total = l.holds(c)
		if l.checker.Broke() {
			t.Fatalf("seed %d: %v\n%s", l.seed, l.checker.Check(checker.Counts{}), state)
		}
		return total == 0
	})
	l.stopReceiving()
	if state, total := l.holds(c); total != 0 {
		t.Errorf("seed %d: the queues hold messages after all was received:\n%s", l.seed, state)
	}
}

// drainQueue receives and acks all that is ready in a queue.
func (l *Load) drainQueue(c *client.Client, queue string) {
	for {
		deliveries, records := l.receive(c, queue, 256)
		if len(deliveries) == 0 {
			return
		}
		l.ackAll(c, deliveries, records)
	}
}

// holds says what the queues hold, and how many messages that are.
func (l *Load) holds(c *client.Client) (state string, total int64) {
	var text strings.Builder
	for _, name := range loadQueues {
		info, err := c.GetQueue(within(l.t), name)
		if errors.Is(err, client.ErrQueueNotFound) {
			l.t.Errorf("seed %d: %v", l.seed, err)
			continue
		}
		if err != nil {
			l.t.Fatalf("seed %d: %v", l.seed, err)
		}
		s := info.Stats
		total += s.Messages()
		fmt.Fprintf(&text, "%s: ready %d, delayed %d, leased %d, buried %d, uncommitted %d\n", name, s.Ready, s.Delayed, s.Leased, s.Buried, s.Uncommitted)
	}
	return text.String(), total
}

// Check fails the test for each broken promise, and for a load that was too small.
func (l *Load) Check(least checker.Counts) {
	l.t.Helper()
	for _, v := range l.checker.Check(least) {
		l.t.Errorf("seed %d: %v", l.seed, v)
	}
	l.t.Logf("seed %d: %+v", l.seed, l.checker.Counts())
}
