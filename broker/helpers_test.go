package broker

import (
	"context"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/reason"
	"github.com/ipcd/ipcd/internal/vfs"
)

var (
	alice = identity.Identity{Kind: identity.Unix, UID: 1000, GID: 100, PID: 1}
	bob   = identity.Identity{Kind: identity.Unix, UID: 1001, GID: 101, Groups: []uint32{7}, PID: 2}
	root  = identity.Identity{Kind: identity.Unix}
	nemo  = identity.Identity{}
)

// world is a broker on a fake clock.
type world struct {
	*testing.T
	*Broker
	ctx context.Context
}

// inWorld runs a test with a broker, in a bubble whose clock moves only when everybody waits.
func inWorld(t *testing.T, test func(w *world)) {
	inWorldWith(t, Options{}, test)
}

// inWorldWith runs it twice: with queues in memory, and with queues in a journal on a file system in memory.
func inWorldWith(t *testing.T, o Options, test func(w *world)) {
	inFreshWorlds(t, func() Options { return o }, test)
}

// inFreshWorlds is inWorldWith with options of its own for each of the two.
func inFreshWorlds(t *testing.T, options func() Options, test func(w *world)) {
	t.Run("memory", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := &world{t, New(options()), t.Context()}
			defer w.Close()
			defer checkCharges(t, w.Broker)
			test(w)
		})
	})
	inJournaledWorld(t, options(), test)
}

// inJournaledWorld runs a test with a broker that has a journal.
func inJournaledWorld(t *testing.T, o Options, test func(w *world)) {
	t.Run("journal", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			o := o
			o.Journal = &JournalOptions{FS: vfs.NewCrash(rand.New(rand.NewPCG(1, 2))), Dir: "/state/journal", SegmentBytes: 8 << 20}
			b, err := Open(o)
			if err != nil {
				t.Fatal(err)
			}
			w := &world{t, b, t.Context()}
			defer w.Close()
			defer checkCharges(t, b)
			test(w)
		})
	})
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// wants fails unless err has that reason.
func (w *world) wants(err error, want reason.Reason) {
	w.Helper()
	if got := reason.Of(err); got != want {
		w.Fatalf("error %v (%q), want reason %q", err, got, want)
	}
}

func (w *world) create(name string, edits ...func(*queue.Settings)) {
	w.Helper()
	_, _, err := w.CreateQueue(w.ctx, alice, name, func(s *queue.Settings) error {
		for _, edit := range edits {
			edit(s)
		}
		return nil
	}, false)
	w.must(err)
}

func (w *world) send(name string, bodies ...string) queue.Stored {
	w.Helper()
	stored, err := w.trySend(name, bodies...)
	w.must(err)
	return stored
}

func (w *world) trySend(name string, bodies ...string) (queue.Stored, error) {
	r := SendRequest{Queue: name, Wait: -1}
	for _, body := range bodies {
		r.Messages = append(r.Messages, queue.Message{Type: 1, Body: []byte(body)})
	}
	return w.Send(w.ctx, alice, r)
}

func (w *world) receive(name string, n int) []queue.Delivery {
	w.Helper()
	got, err := w.Receive(w.ctx, alice, ReceiveRequest{Queue: name, Max: n})
	w.must(err)
	return got
}

func (w *world) receiveOne(name string) queue.Delivery {
	w.Helper()
	got := w.receive(name, 1)
	if len(got) != 1 {
		w.Fatalf("%d messages received from %s, want 1", len(got), name)
	}
	return got[0]
}

func (w *world) settle(d queue.Delivery, v Verdict) error {
	w.Helper()
	out, err := w.Settle(w.ctx, alice, []Settlement{{Receipt: d.Receipt, Verdict: v}})
	w.must(err)
	if len(out.Failures) > 0 {
		return out.Failures[0].Err
	}
	return nil
}

func (w *world) stats(name string) Stats {
	w.Helper()
	info, err := w.GetQueue(w.ctx, alice, name)
	w.must(err)
	return info.Stats
}

// counts fails unless the queue has so many messages in each state.
func (w *world) counts(name string, ready, delayed, leased, buried int64) {
	w.Helper()
	s := w.stats(name)
	if s.Ready != ready || s.Delayed != delayed || s.Leased != leased || s.Buried != buried {
		w.Fatalf("%s has %d ready, %d delayed, %d leased, %d buried; want %d, %d, %d, %d", name, s.Ready, s.Delayed, s.Leased, s.Buried, ready, delayed, leased, buried)
	}
}

func bodiesOf(got []queue.Delivery) string {
	text := ""
	for i := range got {
		text += string(got[i].Body) + " "
	}
	return text
}

// pass lets time go by, and everybody do what is then due.
func pass(d time.Duration) {
	time.Sleep(d) // on the bubble's clock
	synctest.Wait()
}
