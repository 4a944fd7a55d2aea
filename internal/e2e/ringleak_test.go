//go:build linux

package e2e

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ipcd/ipcd/client"
	"github.com/ipcd/ipcd/client/ring"
)

// descriptors returns how many files a process has open.
func descriptors(t *testing.T, pid int) int {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// ringMappings returns the permissions of what a process has mapped of the memory of rings, by the memory's name: those of
// ipcd-producer and ipcd-consumer are members', ipcd-members is the page that tells them of changes. See proc_pid_maps(5).
func ringMappings(t *testing.T, pid int) map[string][]string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string][]string{}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 6 {
			continue
		}
		if name, is := strings.CutPrefix(fields[5], "/memfd:ipcd-"); is {
			found[name] = append(found[name], fields[1])
		}
	}
	return found
}

// ringMappingCounts is how often a process has each memory mapped.
func ringMappingCounts(t *testing.T, pid int) map[string]int {
	t.Helper()
	counts := map[string]int{}
	for name, all := range ringMappings(t, pid) {
		counts[name] = len(all)
	}
	return counts
}

// comeAndGo attaches a producer and a consumer, uses them, and detaches them.
func comeAndGo(d *daemon) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := ring.NewConsumer(ctx, "/r", ring.ConsumerOptions{Attach: d.attach})
	if err != nil {
		return fmt.Errorf("attach a consumer: %w", err)
	}
	defer c.Close()
	p, err := ring.NewProducer(ctx, "/r", ring.ProducerOptions{Attach: d.attach})
	if err != nil {
		return fmt.Errorf("attach a producer: %w", err)
	}
	defer p.Close()
	if err := p.Publish(1, []byte("x")); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	for { // of this producer, or of another one
		m, err := c.Next(ctx)
		if err != nil {
			return fmt.Errorf("read: %w", err)
		}
		if m.Lane == p.Lane() {
			return nil
		}
	}
}

// This process's descriptors are counted, so that no other test may run.
func TestNothingIsLeftOf10000Members(t *testing.T) {
	const members, atOnce = 10_000, 4
	d := start(t)
	d.ctl(t, "ring", "create", "/r", "--capacity", "64KiB").ok(t)
	r := d.dial(t).Ring("/r")
	self, pid := os.Getpid(), d.cmd.Process.Pid
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the daemon has %d descriptors and mapped %v; this process %d and %v", descriptors(t, pid), ringMappingCounts(t, pid), descriptors(t, self), ringMappingCounts(t, self))
		}
	})
	atRest := map[string]int{"producer": 1, "members": 1} // the lane that is kept, and the page
	settled := func(when string) client.RingInfo {
		t.Helper()
		var last client.RingInfo
		awaitRing(t, r, when+" one lane is kept, and nobody is there", func(i client.RingInfo) bool {
			last = i
			return len(i.Consumers) == 0 && len(i.Lanes) == 1 && i.Lanes[0].Ended && i.MemoryBytes == i.Lanes[0].MemoryBytes
		})
		eventually(t, when+" the daemon has mapped what it keeps alone", func() bool { return maps.Equal(ringMappingCounts(t, pid), atRest) })
		eventually(t, when+" this process has mapped nothing", func() bool { return len(ringMappings(t, self)) == 0 })
		return last
	}
	if err := comeAndGo(d); err != nil { // what is made once and kept is made now
		t.Fatal(err)
	}
	before := settled("before")
	runtime.GC() // files that earlier tests have forgotten are closed
	descriptorsBefore, ownBefore := descriptors(t, pid), descriptors(t, self)

	var all sync.WaitGroup
	for range atOnce {
		all.Go(func() {
			for range members / 2 / atOnce {
				if err := comeAndGo(d); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	after := settled("after")
	if after.Epoch < before.Epoch+members {
		t.Errorf("the epoch is %d and was %d: %d members did not come", after.Epoch, before.Epoch, members)
	}
	if after.MemoryBytes != before.MemoryBytes {
		t.Errorf("the ring is charged %d bytes, and was %d", after.MemoryBytes, before.MemoryBytes)
	}
	eventually(t, fmt.Sprintf("the daemon has its %d descriptors again", descriptorsBefore), func() bool { return descriptors(t, pid) <= descriptorsBefore })
	eventually(t, fmt.Sprintf("this process has its %d descriptors again", ownBefore), func() bool { return descriptors(t, self) <= ownBefore })
}

// asCounted is a ring without what changes with time alone: rates, and, of consumers that run, their sleeps, which are
// short even when nothing happens.
func asCounted(i client.RingInfo, running bool) client.RingInfo {
	i.Lanes, i.Consumers = slices.Clone(i.Lanes), slices.Clone(i.Consumers)
	for k := range i.Lanes {
		i.Lanes[k].PublishRate = 0
	}
	for k := range i.Consumers {
		c := &i.Consumers[k]
		c.ReceiveRate = 0
		if running {
			c.Parked, c.ParksTotal = false, 0
		}
	}
	return i
}

func TestLookingAtARingDisturbsNobody(t *testing.T) {
	t.Parallel()
	const largest, batch = 100, 64
	d := start(t)
	d.ctl(t, "ring", "create", "/r", "--capacity", "64KiB", "--policy", "lossless").ok(t)
	c := d.dial(t)
	r := c.Ring("/r")
	consumers := []*member{
		d.join(t, "consumer", memberOptions{Ring: "/r", Lossless: true, Oldest: true, Largest: largest}),
		d.join(t, "consumer", memberOptions{Ring: "/r", Oldest: true, Largest: largest}),
	}
	producers := []*member{ // each publishes one batch
		d.join(t, "producer", memberOptions{Ring: "/r", Largest: largest, Tell: true, Pace: time.Hour}),
		d.join(t, "producer", memberOptions{Ring: "/r", Largest: largest, Tell: true, Pace: time.Hour}),
	}
	for _, p := range producers {
		eventually(t, "it has published, and rests", func() bool { return p.told() == batch })
	}
	idle := func(i client.RingInfo) bool {
		for _, c := range i.Consumers {
			if c.ReceivedTotal != batch*uint64(len(producers)) || !c.Parked {
				return false
			}
		}
		return len(i.Lanes) == len(producers) && len(i.Consumers) == len(consumers) && caughtUp(i)
	}
	awaitRing(t, r, "all is read, and the consumers sleep", idle)

	for _, running := range []bool{true, false} {
		if !running { // not even what follows from being woken happens then
			for _, m := range slices.Concat(consumers, producers) {
				m.signal(t, syscall.SIGSTOP)
				eventually(t, "it stops", func() bool { return m.stopped(t) })
			}
		}
		before, err := r.Info(within(t))
		if err != nil {
			t.Fatal(err)
		}
		looked := make(chan error, 1)
		go func() { looked <- lookOften(c, r) }()
		for looking := true; looking; {
			select {
			case err := <-looked:
				if looking = false; err != nil {
					t.Fatal(err)
				}
			default:
			}
			mapped := ringMappings(t, d.cmd.Process.Pid)
			if !slices.Equal(mapped["producer"], []string{"r--s", "r--s"}) || !slices.Equal(mapped["consumer"], []string{"r--s", "r--s"}) {
				t.Fatalf("while it is looked at the daemon has mapped %v; want two producers and two consumers, each to be read alone", mapped)
			}
		}
		for range 3 {
			d.ctl(t, "ring", "ls").ok(t)
			d.ctl(t, "ring", "stat", "/r").ok(t)
		}
		after, err := r.Info(within(t))
		if err != nil {
			t.Fatal(err)
		}
		if was, is := asCounted(before, running), asCounted(after, running); !reflect.DeepEqual(was, is) {
			t.Errorf("with members that run (%v) it was\n%+v\nand after many looks it is\n%+v", running, was, is)
		}
	}

	for _, m := range slices.Concat(consumers, producers) {
		m.signal(t, syscall.SIGCONT)
	}
	published := map[uint64]uint64{}
	for _, p := range producers {
		lane, last := p.stop(t).only(t)
		published[lane] = last
	}
	for _, c := range consumers {
		report := c.stop(t)
		for lane, last := range published {
			report.holdAgainst(t, lane, last, true)
		}
	}
}

// lookOften looks at the ring in every way that the client has.
func lookOften(c *client.Client, r *client.Ring) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for range 300 {
		if _, err := r.Info(ctx); err != nil {
			return err
		}
		for _, err := range c.Rings(ctx, "*") {
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// stopped reports whether all threads of the member have stopped. See proc_pid_stat(5).
func (m *member) stopped(t *testing.T) bool {
	t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", m.pid()))
	if err != nil || len(threads) == 0 {
		t.Fatalf("no threads of process %d: %v", m.pid(), err)
	}
	for _, path := range threads {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, state, _ := strings.Cut(string(text), ") "); !strings.HasPrefix(state, "T") {
			return false
		}
	}
	return true
}
