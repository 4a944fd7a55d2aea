//go:build linux

package e2e

import (
	"syscall"
	"testing"
	"time"

	"github.com/ipcd/ipcd/client"
)

// stoppedFor is far longer than anything that a ring does about a member that seems dead.
const stoppedFor = 3 * time.Second

func (m *member) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := m.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// A producer that does not move is not dead: nothing is done to its lane, and it goes on where it was.
func TestStoppedProducerIsLeftAlone(t *testing.T) {
	t.Parallel()
	d := start(t)
	d.ctl(t, "ring", "create", "/r", "--capacity", "256KiB", "--policy", "lossless", "--stall", "10s").ok(t)
	r := d.dial(t).Ring("/r")
	consumer := d.join(t, "consumer", memberOptions{Ring: "/r", Lossless: true, Oldest: true, Largest: 300})
	stopped := d.join(t, "producer", memberOptions{Ring: "/r", Largest: 300})
	other := d.join(t, "producer", memberOptions{Ring: "/r", Largest: 300, Pace: time.Millisecond})
	var before client.RingInfo
	awaitRing(t, r, "both publish", func(i client.RingInfo) bool {
		before = i
		return len(i.Lanes) == 2 && i.Lanes[0].Sequence > 0 && i.Lanes[1].Sequence > 0
	})
	lane := func(i client.RingInfo, pid int) client.RingLane {
		for _, l := range i.Lanes {
			if int(l.PID) == pid {
				return l
			}
		}
		t.Fatalf("no lane of process %d in %+v", pid, i.Lanes)
		return client.RingLane{}
	}
	stopped.signal(t, syscall.SIGSTOP)
	awaitRing(t, r, "what it published is read", func(i client.RingInfo) bool { before = i; return caughtUp(i) })
	began := time.Now()
	awaitRing(t, r, "the other goes on, for long", func(i client.RingInfo) bool {
		was, is := lane(before, stopped.pid()), lane(i, stopped.pid())
		if is.Ended || is.Sequence != was.Sequence || is.Position != was.Position || is.Slot != was.Slot {
			t.Fatalf("of the stopped producer's lane %+v became %+v", was, is)
		}
		return time.Since(began) > stoppedFor && lane(i, other.pid()).Sequence > lane(before, other.pid()).Sequence
	})
	stopped.signal(t, syscall.SIGCONT)
	awaitRing(t, r, "it goes on", func(i client.RingInfo) bool {
		return lane(i, stopped.pid()).Sequence > lane(before, stopped.pid()).Sequence
	})
	published := map[uint64]uint64{}
	for _, m := range []*member{stopped, other} {
		id, last := m.stop(t).only(t)
		published[id] = last
	}
	awaitRing(t, r, "all is read", caughtUp)
	report := consumer.stop(t)
	for id, last := range published {
		report.holdAgainst(t, id, last, true)
	}
}

// A consumer that does not move holds lossless producers up for the stall, and no longer. When it moves again it is told.
func TestStoppedConsumerIsEvictedAndTold(t *testing.T) {
	t.Parallel()
	d := start(t)
	d.ctl(t, "ring", "create", "/r", "--capacity", "256KiB", "--policy", "lossless", "--stall", "100ms").ok(t)
	r := d.dial(t).Ring("/r")
	stopped := d.join(t, "consumer", memberOptions{Ring: "/r", Lossless: true, Oldest: true, Largest: 300})
	producer := d.join(t, "producer", memberOptions{Ring: "/r", Largest: 300, Pace: 10 * time.Microsecond})
	awaitRing(t, r, "messages come", func(i client.RingInfo) bool {
		return len(i.Lanes) == 1 && len(i.Consumers) == 1 && i.Consumers[0].ReceivedTotal > 0
	})
	stopped.signal(t, syscall.SIGSTOP)
	var at uint64
	awaitRing(t, r, "it is evicted", func(i client.RingInfo) bool {
		at = i.Lanes[0].Sequence
		return i.Lanes[0].EvictionsTotal == 1 && len(i.Consumers) == 1
	})
	awaitRing(t, r, "the producer goes on", func(i client.RingInfo) bool { return i.Lanes[0].Sequence > at+10_000 })
	stopped.signal(t, syscall.SIGCONT)
	lane, last := producer.stop(t).only(t)
	awaitRing(t, r, "it reads on", caughtUp)
	report := stopped.stop(t)
	if report.Evicted != 1 {
		t.Errorf("it was told %d times that it was evicted", report.Evicted)
	}
	report.holdAgainst(t, lane, last, false)
	if report.Lanes[lane].Lost == 0 {
		t.Errorf("it lost nothing: %+v", report.Lanes[lane])
	}
}
