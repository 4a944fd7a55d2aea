//go:build linux

package e2e

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ipcd/ipcd/client"
)

// caughtUp reports whether the consumers of a ring, all of them, have read all that was published.
func caughtUp(r client.RingInfo) bool {
	for _, c := range r.Consumers {
		if c.LagMessages > 0 || len(c.Cursors) < len(r.Lanes) {
			return false
		}
	}
	return true
}

// holdAgainst checks what a consumer that was there from the beginning says of a lane in which so many messages
// were published.
func (r memberReport) holdAgainst(t *testing.T, lane, published uint64, lossless bool) {
	t.Helper()
	got := r.Lanes[lane]
	if published == 0 && got == nil {
		return
	}
	if got == nil || got.First != 1 || got.Last != published || got.Received+got.Lost != published || lossless && got.Lost > 0 {
		t.Errorf("lane %d, of %d messages (lossless: %v): the consumer says %+v", lane, published, lossless, got)
	}
}

// only returns the one lane that a producer reports, and its last sequence.
func (r memberReport) only(t *testing.T) (lane, last uint64) {
	t.Helper()
	if len(r.Lanes) != 1 {
		t.Fatalf("a producer reports of %d lanes", len(r.Lanes))
	}
	for lane, l := range r.Lanes {
		return lane, l.Last
	}
	return 0, 0
}

func TestProgramsMeetInSharedMemoryAndFromTheShell(t *testing.T) {
	t.Parallel()
	d := start(t)
	d.ctl(t, "ring", "create", "/r", "--capacity", "1MiB", "--policy", "lossless").ok(t)
	r := d.dial(t).Ring("/r")
	consumer := d.join(t, "consumer", memberOptions{Ring: "/r", Lossless: true, Oldest: true, Largest: 200})
	producer := d.join(t, "producer", memberOptions{Ring: "/r", Largest: 200, Pace: time.Millisecond})
	awaitRing(t, r, "messages come", func(i client.RingInfo) bool { return len(i.Lanes) == 1 && i.Lanes[0].Sequence > 1000 })
	info, err := r.Info(within(t))
	if err != nil {
		t.Fatal(err)
	}
	if l, c := info.Lanes[0], info.Consumers[0]; l.PID != producer.pid() || l.Daemon || l.Ended || c.PID != consumer.pid() || !c.Lossless || c.Daemon {
		t.Errorf("the ring says %+v, of the producer %d and the consumer %d", info, producer.pid(), consumer.pid())
	}
	if got := d.ctl(t, "ring", "stat", "/r").ok(t); !strings.Contains(got, fmt.Sprint(producer.pid())) || !strings.Contains(got, fmt.Sprint(consumer.pid())) {
		t.Errorf("stat shows neither %d nor %d:\n%s", producer.pid(), consumer.pid(), got)
	}
	// The shell sees what the producer publishes.
	for line := range strings.Lines(d.ctl(t, "ring", "sub", "/r", "--from", "oldest", "-n", "100", "-o", "jsonl").ok(t)) {
		var m ringMessageJSON
		unmarshal(t, line, &m)
		if m.LaneID != info.Lanes[0].ID || m.Type != typeOf(m.Sequence) {
			t.Fatalf("the shell sees %s", line)
		}
	}
	lane, last := producer.stop(t).only(t)
	awaitRing(t, r, "all is read", func(i client.RingInfo) bool { return i.Lanes[0].Ended && caughtUp(i) })
	consumer.stop(t).holdAgainst(t, lane, last, true)
	awaitRing(t, r, "the consumer is gone", func(i client.RingInfo) bool { return len(i.Consumers) == 0 })
	// The lane of the producer that left can still be read.
	if got := d.ctl(t, "ring", "sub", "/r", "--from", fmt.Sprint(last), "-n", "1", "-o", "jsonl").ok(t); !strings.Contains(got, fmt.Sprintf(`"sequence":%d,`, last)) {
		t.Errorf("of the lane that has ended the last is %s", got)
	}
}

func TestMembersGoOnWhileTheDaemonRestarts(t *testing.T) {
	t.Parallel()
	for how, end := range map[string]func(*testing.T, *daemon){
		"killed": func(_ *testing.T, d *daemon) { d.kill() },
		"stopped": func(t *testing.T, d *daemon) {
			d.signal(syscall.SIGTERM)
			if code := d.awaitExit(t); code != 0 {
				t.Errorf("exit %d", code)
			}
		},
	} {
		t.Run(how, func(t *testing.T) {
			dir := shortDir(t)
			d := startIn(t, dir)
			d.ctl(t, "ring", "create", "/r", "--capacity", "256KiB", "--policy", "lossless", "--retain", "64MiB", "--stall", "10s").ok(t)
			members := []*member{d.join(t, "consumer", memberOptions{Ring: "/r", Lossless: true, Oldest: true, Largest: 300})}
			for range 2 {
				members = append(members, d.join(t, "producer", memberOptions{Ring: "/r", Largest: 300, Pace: time.Millisecond}))
			}
			awaitRing(t, d.dial(t).Ring("/r"), "messages come", func(i client.RingInfo) bool {
				return len(i.Lanes) == 2 && i.Lanes[0].Sequence > 0 && i.Lanes[1].Sequence > 0
			})
			for range 3 {
				before, err := d.dial(t).Ring("/r").Info(within(t))
				if err != nil {
					t.Fatal(err)
				}
				end(t, d)
				d = startIn(t, dir)
				awaitRing(t, d.dial(t).Ring("/r"), "the same members are there, at the same positions and beyond", func(now client.RingInfo) bool {
					return sameMembers(before, now)
				})
				for _, m := range members {
					m.alive(t)
				}
			}
			published := map[uint64]uint64{}
			for _, m := range members[1:] {
				lane, last := m.stop(t).only(t)
				published[lane] = last
			}
			awaitRing(t, d.dial(t).Ring("/r"), "all is read", func(i client.RingInfo) bool { return len(i.Lanes) == 2 && caughtUp(i) })
			report := members[0].stop(t)
			for lane, last := range published {
				report.holdAgainst(t, lane, last, true)
			}
			if report.Evicted > 0 {
				t.Errorf("the consumer was evicted %d times", report.Evicted)
			}
		})
	}
}

// sameMembers reports whether the members of before are there now, no other, each further than it was.
func sameMembers(before, now client.RingInfo) bool {
	if before.ID != now.ID || len(before.Lanes) != len(now.Lanes) || len(before.Consumers) != len(now.Consumers) || now.Epoch <= before.Epoch {
		return false
	}
	for i, b := range before.Lanes {
		if n := now.Lanes[i]; n.ID != b.ID || n.PID != b.PID || n.Slot != b.Slot || n.Ended || n.Sequence <= b.Sequence || n.Position <= b.Position {
			return false
		}
	}
	for i, b := range before.Consumers {
		if n := now.Consumers[i]; n.ID != b.ID || n.PID != b.PID || n.Slot != b.Slot || n.ReceivedTotal <= b.ReceivedTotal {
			return false
		}
	}
	return true
}

func TestProducerKilledWhileTheDaemonIsAwayLeavesAllThatItPublished(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	d := startIn(t, dir)
	d.ctl(t, "ring", "create", "/r", "--capacity", "1MiB", "--policy", "lossless", "--stall", "10s").ok(t)
	consumer := d.join(t, "consumer", memberOptions{Ring: "/r", Lossless: true, Oldest: true, Largest: 100, Pause: 5 * time.Millisecond})
	producer := d.join(t, "producer", memberOptions{Ring: "/r", Largest: 100, Tell: true})
	eventually(t, "it publishes", func() bool { return producer.told() > 0 })
	awaitRing(t, d.dial(t).Ring("/r"), "the consumer has been told of the lane, which only the daemon can do", func(i client.RingInfo) bool {
		return len(i.Consumers) == 1 && len(i.Consumers[0].Cursors) == 1 && i.Consumers[0].Cursors[0].Sequence > 0
	})
	d.kill()
	while := producer.told()
	eventually(t, "it goes on without the daemon", func() bool { return producer.told() > while+10_000 })
	producer.kill()
	d = startIn(t, dir)
	awaitRing(t, d.dial(t).Ring("/r"), "the consumer comes back, the producer does not", func(i client.RingInfo) bool {
		return len(i.Consumers) == 1 && len(i.Lanes) == 0
	})
	// Another's lane shows that the list of members is complete again, and that the consumer has it.
	last := d.join(t, "producer", memberOptions{Ring: "/r", Largest: 100, Pace: time.Millisecond})
	awaitRing(t, d.dial(t).Ring("/r"), "the consumer reads the new lane", func(i client.RingInfo) bool {
		return len(i.Consumers) == 1 && len(i.Consumers[0].Cursors) == 1 && i.Consumers[0].Cursors[0].Sequence > 0
	})
	lane, published := last.stop(t).only(t)
	report := consumer.stop(t)
	report.holdAgainst(t, lane, published, true)
	if len(report.Lanes) != 2 {
		t.Fatalf("the consumer saw %d lanes, want 2", len(report.Lanes))
	}
	for id, got := range report.Lanes {
		if id != lane && (got.First != 1 || got.Lost > 0 || got.Received != got.Last || got.Last < producer.told()) {
			t.Errorf("the producer told of %d messages, the consumer says %+v", producer.told(), got)
		}
	}
}

func TestKilledMembersCostOthersNothing(t *testing.T) {
	t.Parallel()
	for _, policy := range []string{"overwrite", "lossless"} {
		t.Run(policy, func(t *testing.T) {
			chance := seedOf(t)
			lossless := policy == "lossless"
			d := start(t)
			d.ctl(t, "ring", "create", "/r", "--capacity", "64KiB", "--policy", policy, "--retain", "1GiB", "--stall", "10s").ok(t)
			r := d.dial(t).Ring("/r")
			checker := d.join(t, "consumer", memberOptions{Ring: "/r", Lossless: lossless, Oldest: true, Largest: 1000})
			var victims []*member
			for range 20 {
				for len(victims) < 4 {
					o := memberOptions{Ring: "/r", Lossless: lossless, Oldest: chance.IntN(2) == 0, Largest: 1000}
					if chance.IntN(2) == 0 {
						o.Pause = time.Millisecond
						victims = append(victims, d.launchMember(t, "consumer", o))
					} else {
						o.Pace = time.Duration(chance.IntN(3)) * 100 * time.Microsecond
						victims = append(victims, d.launchMember(t, "producer", o))
					}
				}
				// The moment is of no account: joining, publishing, sleeping.
				time.Sleep(time.Duration(chance.IntN(40)) * time.Millisecond)
				i := chance.IntN(len(victims))
				victims[i].alive(t)
				victims[i].kill()
				victims = append(victims[:i], victims[i+1:]...)
				checker.alive(t)
			}
			for _, v := range victims {
				v.alive(t)
				v.kill()
			}
			var last client.RingInfo
			awaitRing(t, r, "the dead are gone, and all that they published is read", func(i client.RingInfo) bool {
				last = i
				for _, l := range i.Lanes {
					if !l.Ended {
						return false
					}
				}
				return len(i.Consumers) == 1 && caughtUp(i)
			})
			report := checker.stop(t)
			messages := uint64(0)
			for _, l := range last.Lanes {
				report.holdAgainst(t, l.ID, l.Sequence, lossless)
				messages += l.Sequence
			}
			if len(report.Lanes) > len(last.Lanes) || report.Evicted > 0 || messages == 0 {
				t.Errorf("%d lanes with %d messages; the consumer says %d lanes, evicted %d times", len(last.Lanes), messages, len(report.Lanes), report.Evicted)
			}
			d.ctl(t, "ring", "rm", "/r", "--force").ok(t)
		})
	}
}
