package broker

import (
	"strings"
	"testing"
	"time"

	"github.com/ipcd/ipcd/broker/queue"
)

// TestNothingIsWrittenOfADeletedQueue settles deliveries of a queue after it was deleted. Were that written,
// it would outlive the note of the deletion, and the journal would hold a queue without a definition.
func TestNothingIsWrittenOfADeletedQueue_S23_S25(t *testing.T) {
	onDisk(t, func(d *disk) {
		w := d.start()
		w.create("/gone", func(s *queue.Settings) { s.Lease = time.Minute })
		w.create("/q")
		w.send("/gone", "a", "b")
		c, err := w.Consume(w.ctx, alice, ConsumeRequest{Queue: "/gone"})
		w.must(err)
		w.must(c.Credit(2, 0))
		_, err = c.Next(w.ctx)
		w.must(err)
		_, err = w.DeleteQueue(w.ctx, alice, "/gone")
		w.must(err)
		churn(w, 100) // the note of the deletion and what comes now lie in different segments
		c.Close(false)
		pass(time.Second)
		for i := 0; w.compactor.freed.Load() == 0 && i < 10; i++ {
			churn(w, 20)
		}
		if w.compactor.freed.Load() == 0 {
			t.Fatal("no segment was given up")
		}
		d.powerCut(w)
		w = d.start()
		w.Close()
	})
}

// churn sends and consumes messages of 1000 bytes.
func churn(w *world, n int) {
	w.Helper()
	body := strings.Repeat("x", 1000)
	for range n {
		w.send("/q", body)
		_, err := w.Receive(w.ctx, alice, ReceiveRequest{Queue: "/q", Max: 1, Consume: true})
		w.must(err)
		pass(time.Millisecond)
	}
}

func TestSequencesOfAMemoryQueueAreReservedBeforeTheyRunOut_S5_S26(t *testing.T) {
	defer func(whole uint64) { sequenceBlock = whole }(sequenceBlock)
	sequenceBlock = 1000
	onDisk(t, func(d *disk) {
		w := d.start()
		w.create("/m", func(s *queue.Settings) {
			s.Durability = queue.Memory
			s.MaxMessages = 10
			s.Overflow = queue.DropOldest
		})
		last := uint64(0)
		for last < sequenceBlock+100 {
			last = w.send("/m", "a", "b", "c", "d", "e").First + 4
		}
		d.powerCut(w)
		w = d.start()
		defer w.Close()
		if first := w.send("/m", "y").First; first <= last {
			t.Errorf("sequence %d comes after %d", first, last)
		}
	})
}

// TestAcksAloneNeedNoRoom acknowledges in a transaction while no send is let in: that is what makes room.
func TestAcksAloneNeedNoRoom_S24(t *testing.T) {
	onDisk(t, func(d *disk) {
		d.o.MaxMemory = 2000
		w := d.start()
		defer w.Close()
		w.create("/q")
		w.send("/q", strings.Repeat("x", 1800))
		got := w.receiveOne("/q")
		w.maxMemory = 1000 // as after a restart with a lower limit
		_, err := w.Transact(w.ctx, alice, TransactRequest{Acks: []queue.Receipt{got.Receipt}})
		w.must(err)
		w.counts("/q", 0, 0, 0, 0)
	})
}
