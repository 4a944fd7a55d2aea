package ring

import (
	"context"
	"testing"

	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
	"github.com/ipcd/ipcd/internal/shm"
)

func TestBudgetOfAUIDIsExactToTheByte(t *testing.T) {
	for _, spare := range []int64{0, -1} {
		w := newWorld(t, Options{MemoryPerUID: 2*laneSize + shm.ConsumerSize + spare})
		w.create(alice, "/r", func(s *Settings) error { s.Retain = 0; return small(s) })
		first, second := w.producer(alice, "/r"), w.producer(alice, "/r")
		third := AttachRequest{Name: "/r", Role: Consumer}
		if spare < 0 {
			_, err := w.Attach(context.Background(), alice, third)
			wants(t, err, reason.QuotaExceeded, "uid 1000", "ring_memory_per_uid", "147456", "159743")
		} else {
			w.attach(alice, third)
			_, err := w.Attach(context.Background(), alice, third)
			wants(t, err, reason.QuotaExceeded, "159744")
		}
		w.producer(bob, "/r") // each pays for himself
		first.die()
		first.Leave("test")
		w.producer(alice, "/r")
		second.Leave("test")
		_, err := w.Attach(context.Background(), alice, AttachRequest{Name: "/r", Role: Producer})
		wants(t, err, reason.QuotaExceeded) // its memory is still mapped
		second.die()
		w.disposeLingering() // as watch does each second
		w.producer(alice, "/r")
	}
}

func TestBudgetOfAllIsExactToTheByte(t *testing.T) {
	w := newWorld(t, Options{Memory: 2*laneSize + shm.ConsumerSize})
	w.create(alice, "/r", small)
	w.create(bob, "/s", small)
	w.producer(alice, "/r")
	s := w.producer(bob, "/s")
	c := w.consumer(root, "/s")
	_, err := w.Attach(context.Background(), root, AttachRequest{Name: "/s", Role: Consumer})
	wants(t, err, reason.QuotaExceeded, "ring_memory", "159744")
	if got := w.Totals(); got != (Totals{Rings: 2, Lanes: 2, Consumers: 1, Bytes: 159744, MemoryLimit: 159744}) {
		t.Errorf("totals %+v", got)
	}
	if got := w.info("/s").Bytes; got != laneSize+shm.ConsumerSize {
		t.Errorf("/s is charged %d bytes", got)
	}
	c.die()
	c.Leave("test")
	w.consumer(root, "/s")
	s.die()
	if _, err := w.Delete(context.Background(), bob, "/s"); err != nil {
		t.Fatal(err)
	}
	if got := w.Totals().Bytes; got != laneSize+shm.ConsumerSize { // of the consumer that still has its pages mapped
		t.Errorf("%d bytes are charged", got)
	}
}

func TestBudgetHoldsForPending(t *testing.T) {
	w := newWorld(t, Options{MemoryPerUID: laneSize})
	w.create(alice, "/r", small)
	q := AttachRequest{Name: "/r", Role: Producer}
	j, p := w.begin(alice, q)
	_, err := w.Attach(context.Background(), alice, q)
	wants(t, err, reason.QuotaExceeded)
	j.Abandon() // and yet it keeps its mapping
	_, err = w.Attach(context.Background(), alice, q)
	wants(t, err, reason.QuotaExceeded)
	p.die()
	w.disposeLingering()
	w.producer(alice, "/r")
}

func TestEndedLanesMakeRoomForTheirPayer(t *testing.T) {
	w := newWorld(t, Options{MemoryPerUID: 2 * laneSize})
	w.create(alice, "/r", func(s *Settings) error { s.Retain = 1 << 30; return small(s) })
	old := w.producer(bob, "/r")
	old.die()
	old.Leave("test")
	for range 5 {
		p := w.producer(alice, "/r")
		p.die()
		p.Leave("test")
	}
	i := w.info("/r")
	if len(i.Lanes) != 3 || i.Lanes[0].ID != old.ID() || i.Bytes != 3*laneSize {
		t.Errorf("alice's lanes made room for hers only: %+v", i)
	}
}

func TestUIDHasSoManyMembers(t *testing.T) {
	w := newWorld(t, Options{})
	rings := []string{"/a", "/b", "/c", "/d", "/f", "/g", "/h", "/i"}
	for _, name := range append(rings, "/e") {
		w.create(alice, name, small)
	}
	var all []*process
	for i := range limits.RingMembersPerUID {
		all = append(all, w.consumer(bob, rings[i%len(rings)]))
	}
	q := AttachRequest{Name: "/e", Role: Consumer}
	_, err := w.Attach(context.Background(), bob, q)
	wants(t, err, reason.QuotaExceeded, "uid 1001", "256")
	w.consumer(alice, "/e")
	all[7].Leave("test") // although its pages are still mapped
	w.consumer(bob, "/e")
}

func TestNobodyButTheOwnerTakesAllOfARing(t *testing.T) {
	w := newWorld(t, Options{})
	w.create(alice, "/r", small)
	for range limits.RingShare {
		w.consumer(bob, "/r")
	}
	_, err := w.Attach(context.Background(), bob, AttachRequest{Name: "/r", Role: Consumer})
	wants(t, err, reason.QuotaExceeded, "uid 1001", "32", "64")
	for range limits.RingConsumers - limits.RingShare {
		w.consumer(alice, "/r")
	}
}

// What a subscription copies stands in the daemon's own memory.
func TestSubscriptionsAreChargedForTheirLargestMessage(t *testing.T) {
	w := newWorld(t, Options{})
	w.create(alice, "/r", small)
	before := w.info("/r").Bytes
	s, err := w.Subscribe(context.Background(), bob, "/r", SubscribeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	i := w.info("/r")
	if took := i.Bytes - before; took < shm.ConsumerSize+i.Settings.MaxMessage {
		t.Errorf("%d bytes are charged for messages of up to %d", took, i.Settings.MaxMessage)
	}
	s.Close()
	if now := w.info("/r").Bytes; now != before {
		t.Errorf("%d bytes are charged after its end", now-before)
	}
}

func TestRingThatNoProducerCouldAttachToIsNotMade(t *testing.T) {
	w := newWorld(t, Options{MemoryPerUID: 1 << 20})
	_, _, err := w.Create(context.Background(), alice, "/r", func(s *Settings) error { s.Capacity = 2 << 20; return nil }, false)
	wants(t, err, reason.QuotaExceeded, "2.0 MiB", "1.0 MiB", "ring_memory_per_uid")
}

func TestDaemonsOwnLaneIsChargedToTheOwner(t *testing.T) {
	w := newWorld(t, Options{MemoryPerUID: laneSize})
	w.create(alice, "/r", small)
	ctx := context.Background()
	one := []shm.Message{{Type: 1}}
	for range 3 {
		if _, _, err := w.Publish(ctx, bob, "/r", one); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Attach(ctx, bob, AttachRequest{Name: "/r", Role: Producer}); err != nil {
		t.Errorf("bob has paid for nothing, but: %v", err)
	}
	_, err := w.Attach(ctx, alice, AttachRequest{Name: "/r", Role: Producer})
	wants(t, err, reason.QuotaExceeded, "uid 1000")
	if _, err := w.Delete(ctx, alice, "/r"); err != nil {
		t.Fatal(err)
	}
	w.create(alice, "/r", small)
	w.producer(alice, "/r")
}

func TestChargesAreReleasedOnce(t *testing.T) {
	b := budget{limit: 100, perUID: 60, accounts: map[identity.Principal]*account{}}
	rg := &ring{name: "/r"}
	p := alice.Principal()
	c, short := b.charge(rg, p, 60)
	if short != nil {
		t.Fatal(short.err)
	}
	hers, his := &Member{memory: &memory{charge: c}}, &Member{memory: &memory{charge: &charge{payer: bob.Principal()}}}
	if _, short := b.charge(rg, p, 1); short == nil || !short.evict(hers) || short.evict(his) {
		t.Errorf("a byte too much of the payer's: %+v", short)
	}
	if _, short := b.charge(rg, nemo.Principal(), 41); short == nil || !short.evict(hers) || !short.evict(his) {
		t.Errorf("a byte too much of all: %+v", short)
	}
	d, short := b.charge(rg, identity.Identity{}.Principal(), 40)
	if short != nil {
		t.Fatal(short.err)
	}
	c.left()
	c.left()
	if a := b.accounts[p]; a.bytes != 60 || a.members != 0 {
		t.Errorf("after it left: %+v", a)
	}
	for range 2 {
		c.release()
		d.release()
	}
	if b.used != 0 || rg.charged != 0 || len(b.accounts) != 0 {
		t.Errorf("left over: %d, %d, %v", b.used, rg.charged, b.accounts)
	}
}

func TestShortagesReadWellForEverybody(t *testing.T) {
	for p, want := range map[identity.Principal][2]string{
		identity.User(0): {"uid 0 uses 0 bytes", "uid 0 has 256 producers"},
		{}:               {"anonymous callers use 0 bytes", "anonymous callers have 256 producers"},
	} {
		b := &budget{limit: 100, perUID: 100, accounts: map[identity.Principal]*account{}}
		_, short := b.charge(&ring{name: "/r"}, p, 101)
		wants(t, short.err, reason.QuotaExceeded, "/r: "+want[0])
		b.accounts[p] = &account{members: limits.RingMembersPerUID}
		_, short = b.charge(&ring{name: "/r"}, p, 1)
		wants(t, short.err, reason.QuotaExceeded, "/r: "+want[1])
	}
}
