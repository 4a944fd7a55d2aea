package ring

import (
	"context"
	"errors"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/shm"
)

// manager is a service manager's fd store.
type manager struct {
	t    *testing.T
	mu   sync.Mutex
	kept map[string]*os.File
	down error // the answer to everything, if it is not nil
}

func newManager(t *testing.T) *manager {
	m := &manager{t: t, kept: map[string]*os.File{}}
	t.Cleanup(func() {
		for _, f := range m.kept {
			f.Close()
		}
	})
	return m
}

func (m *manager) Store(name string, f *os.File) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down != nil {
		return m.down
	}
	if len(name) > 240 || strings.ContainsFunc(name, func(c rune) bool { return c <= ' ' || c >= 0x7f || c == ':' }) {
		m.t.Errorf("stored as %q", name)
	}
	if m.kept[name] != nil {
		m.t.Errorf("%s was stored twice", name)
		return nil
	}
	again, err := duplicate(f)
	if err != nil {
		m.t.Errorf("store %s: %v", name, err)
		return err
	}
	if mapped, err := shm.Map(again, shm.PageSize, true); err == nil {
		mapped.Release()
		m.t.Errorf("%s can be mapped writable", name)
	}
	m.kept[name] = again
	return nil
}

func (m *manager) Discard(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down != nil {
		return m.down
	}
	if f := m.kept[name]; f == nil {
		m.t.Errorf("%s is discarded, and was not there", name)
	} else {
		f.Close()
		delete(m.kept, name)
	}
	return nil
}

// names are those of what it keeps.
func (m *manager) names() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.kept))
}

// gives is what a new run of the daemon is given.
func (m *manager) gives() []StoredFD {
	m.t.Helper()
	var all []StoredFD
	for _, name := range m.names() {
		f, err := duplicate(m.kept[name])
		if err != nil {
			m.t.Fatal(err)
		}
		all = append(all, StoredFD{name, f})
	}
	return all
}

// keptWorld is a world whose lanes are kept over restarts.
type keptWorld struct {
	*world
	manager *manager
}

func newKeptWorld(t *testing.T, o Options) keptWorld {
	t.Helper()
	m := newManager(t)
	o.FDStore = m
	return keptWorld{newWorld(t, o), m}
}

func (w keptWorld) restart() {
	w.Helper()
	w.Close()
	w.o.Stored = w.manager.gives()
	w.start()
}

// wrote makes a lane with messages of these types, whose producer has left.
func (w keptWorld) wrote(name string, types ...int64) *process {
	w.Helper()
	p := w.producer(alice, name)
	p.write(w.T, types...)
	p.die()
	p.Leave("test")
	return p
}

func (p *process) write(t *testing.T, types ...int64) {
	t.Helper()
	out := p.writer(t)
	for _, typ := range types {
		if err := out.Publish(context.Background(), typ, []byte{byte(typ)}); err != nil {
			t.Fatal(err)
		}
	}
	out.Close()
}

// reads fails unless these are the types of the next messages, with nothing lost, and no more are there.
func reads(t *testing.T, in *shm.Reader, want ...int64) {
	t.Helper()
	var got []int64
	for {
		m, ok, err := in.TryNext()
		if err != nil || m.Lost != 0 || ok && (len(m.Payload) != 1 || m.Payload[0] != byte(m.Type)) {
			t.Fatalf("%+v, %v", m, err)
		}
		if !ok {
			break
		}
		got = append(got, m.Type)
	}
	if !slices.Equal(got, want) {
		t.Errorf("read %v, want %v", got, want)
	}
}

func TestEndedLanesSurviveRestarts(t *testing.T) {
	w := newKeptWorld(t, Options{AdoptWindow: hour})
	w.create(alice, "/r", small)
	p := w.wrote("/r", 1, 2, 3)
	for run := range 3 {
		w.restart()
		i := w.info("/r")
		if len(i.Lanes) != 1 || i.Bytes != laneSize {
			t.Fatalf("%+v", i)
		}
		if l := i.Lanes[0]; l.ID != p.header.MemberID || l.Slot != p.header.Slot || !l.Ended || l.Sequence != 3 || l.Who.UID != alice.UID || l.PID != 1 || l.Daemon {
			t.Errorf("run %d: %+v", run, l)
		}
		if a := w.budget.accounts[alice.Principal()]; a.bytes != laneSize || a.members != 0 {
			t.Errorf("%+v", a)
		}
		c := w.consumer(bob, "/r")
		in := c.reader(t, shm.Oldest)
		reads(t, in, 1, 2, 3)
		in.Close()
		c.die()
		c.Leave("test")
	}
	if got := w.manager.names(); len(got) != 1 {
		t.Errorf("kept: %v", got)
	}
}

func TestConsumersReadOnInLanesThatWereKept(t *testing.T) {
	w := newKeptWorld(t, Options{AdoptWindow: hour})
	w.create(alice, "/r", small)
	c := w.consumer(bob, "/r").keep(t, bob, "/r")
	in := c.reader(t, shm.Oldest)
	w.wrote("/r", 1, 2, 3)
	if _, _, err := w.Publish(context.Background(), alice, "/r", []shm.Message{{Type: 4, Payload: []byte{4}}}); err != nil {
		t.Fatal(err)
	}
	in.Offer(c.peers(t))
	var first int64
	if m, err := in.Next(context.Background()); err != nil {
		t.Fatal(err)
	} else {
		first = m.Type
	}
	for range 2 {
		w.restart()
		w.back(c)
		in.Offer(c.peers(t))
	}
	rest := []int64{2, 3, 4}
	if first == 4 { // lanes are read in turn
		rest = []int64{1, 2, 3}
	}
	reads(t, in, rest...)
	close(w.window) // from now on lists are complete
	w.window = make(chan struct{})
	in.Offer(c.peers(t))
	reads(t, in)
}

func TestDaemonsOwnLaneComesBackAsEnded(t *testing.T) {
	w := newKeptWorld(t, Options{})
	w.create(alice, "/r", func(s *Settings) error { s.Retain = 8 * capacity; return small(s) })
	first, _ := w.publish(1, 2)
	w.restart()
	if i := w.info("/r"); len(i.Lanes) != 1 || i.Lanes[0].ID != first || !i.Lanes[0].Ended || !i.Lanes[0].Daemon || i.Lanes[0].Who.UID != alice.UID {
		t.Fatalf("%+v", i.Lanes)
	}
	second, sequence := w.publish(3)
	if second == first || sequence != 1 {
		t.Errorf("lane %#x, sequence %d: the lane before cannot be written any more", second, sequence)
	}
	w.restart()
	s := w.subscribe(SubscribeOptions{Start: shm.Oldest})
	got := s.read(t, 3)
	slices.Sort(got)
	if !slices.Equal(got, []int64{1, 2, 3}) || len(w.info("/r").Lanes) != 2 {
		t.Errorf("read %v of %+v", got, w.info("/r").Lanes)
	}
}

// What the daemon goes on writing is not within retain. Once it has ended it is, and the older lanes make room.
func TestNoMoreIsRestoredThanIsRetained(t *testing.T) {
	w := newKeptWorld(t, Options{})
	w.create(alice, "/r", small) // one lane is retained
	w.wrote("/r", 1)
	own, _ := w.publish(2)
	if got := w.manager.names(); len(got) != 2 {
		t.Errorf("kept: %v", got)
	}
	w.restart()
	if i := w.info("/r"); len(i.Lanes) != 1 || i.Lanes[0].ID != own || len(w.manager.names()) != 1 {
		t.Errorf("%+v, kept: %v", i.Lanes, w.manager.names())
	}
	w.create(alice, "/none", func(s *Settings) error { s.Retain = 0; return small(s) })
	if _, _, err := w.Publish(context.Background(), alice, "/none", messages(1)); err != nil {
		t.Fatal(err)
	}
	w.wrote("/none", 1)
	if got := w.manager.names(); len(got) != 1 {
		t.Errorf("nothing is retained, but kept is %v", got)
	}
}

func TestNothingIsKeptThatIsGivenUp(t *testing.T) {
	for what, end := range map[string]func(w keptWorld) error{
		"deleted": func(w keptWorld) error {
			_, err := w.Delete(context.Background(), alice, "/r")
			return err
		},
		"less retained": func(w keptWorld) error {
			_, err := w.Update(context.Background(), alice, "/r", func(s *Settings) error { s.Retain = 0; return nil })
			return err
		},
		"evicted by others": func(w keptWorld) error {
			for range 3 {
				w.wrote("/r", 5)
				w.wrote("/r", 5)
			}
			_, err := w.Delete(context.Background(), alice, "/r")
			return err
		},
		"out of memory": func(w keptWorld) error {
			w.producer(alice, "/r")
			w.producer(alice, "/r")
			return nil
		},
	} {
		for _, restarts := range []int{0, 1, 2} {
			w := newKeptWorld(t, Options{MemoryPerUID: 2 * laneSize})
			w.create(alice, "/r", func(s *Settings) error { s.Retain = 2 * capacity; return small(s) })
			w.wrote("/r", 1)
			w.wrote("/r", 2)
			for range restarts {
				w.restart()
			}
			if got := w.manager.names(); len(got) != 2 {
				t.Fatalf("kept: %v", got)
			}
			if err := end(w); err != nil {
				t.Fatal(err)
			}
			if got := w.manager.names(); len(got) != 0 {
				t.Errorf("%s, after %d restarts: %v", what, restarts, got)
			}
		}
	}
}

func TestOldestKeptLanesGoFirst(t *testing.T) {
	w := newKeptWorld(t, Options{})
	retain := func(lanes int64) {
		t.Helper()
		if _, err := w.Update(context.Background(), alice, "/r", func(s *Settings) error { s.Retain = lanes * capacity; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	w.create(alice, "/r", func(s *Settings) error { s.Retain = 5 * capacity; return small(s) })
	// The younger producer leaves first.
	b, a := w.producer(alice, "/r"), w.producer(alice, "/r")
	for _, p := range []*process{a, b} {
		p.die()
		p.Leave("test")
	}
	own, _ := w.publish(1)
	w.restart()
	c := w.wrote("/r", 1)
	w.restart()
	var left []uint64
	for n := int64(4); n >= 0; n-- {
		retain(n)
		left = nil
		for _, l := range w.info("/r").Lanes {
			left = append(left, l.ID)
		}
		want := []uint64{a.ID(), b.ID(), own, c.ID()}[4-n:]
		slices.Sort(left)
		slices.Sort(want)
		if !slices.Equal(left, want) {
			t.Errorf("%#x are retained, want %#x", left, want)
		}
	}
	if got := w.manager.names(); len(got) != 0 {
		t.Errorf("kept: %v", got)
	}
}

func TestWhatDoesNotFitAnyMoreIsDiscarded(t *testing.T) {
	w := newKeptWorld(t, Options{})
	w.create(alice, "/r", func(s *Settings) error { s.Retain = 5 * capacity; return small(s) })
	w.wrote("/r", 1)
	last := w.wrote("/r", 2)
	w.o.MemoryPerUID = 2*laneSize - 1
	w.restart()
	if i := w.info("/r"); len(i.Lanes) != 1 || i.Lanes[0].ID != last.ID() {
		t.Errorf("%+v", i.Lanes)
	}
	if got := w.manager.names(); len(got) != 1 {
		t.Errorf("kept: %v", got)
	}
}

func TestLanesOfDeletedRingsAreNotKeptForOthers(t *testing.T) {
	w := newKeptWorld(t, Options{})
	w.create(alice, "/r", small)
	w.wrote("/r", 1)
	w.manager.down = errors.New("it does not listen")
	if _, err := w.Delete(context.Background(), alice, "/r"); err != nil {
		t.Fatal(err)
	}
	w.create(bob, "/r", small)
	w.manager.down = nil
	w.restart()
	if i := w.info("/r"); len(i.Lanes) != 0 {
		t.Errorf("%+v", i.Lanes)
	}
	if got := w.manager.names(); len(got) != 0 {
		t.Errorf("kept: %v", got)
	}
}

func TestManagerThatKeepsNothingDoesNoHarm(t *testing.T) {
	w := newKeptWorld(t, Options{})
	w.manager.down = errors.New("it does not listen")
	w.create(alice, "/r", small)
	w.wrote("/r", 1)
	w.publish(1, 2)
	w.restart()
	if i := w.info("/r"); len(i.Lanes) != 0 || i.Bytes != 0 {
		t.Errorf("%+v", i)
	}
	w.publish(3)
}

func TestNobodyFillsTheStoreForAllOthers(t *testing.T) {
	var s shelf
	hers, his := identity.User(1), identity.User(2)
	for range limits.RingStoredPerUID {
		if !s.take(hers) {
			t.Fatal("refused within her share")
		}
	}
	if s.take(hers) || !s.take(his) {
		t.Error("her share is not hers alone")
	}
	s.give(hers)
	if !s.take(hers) {
		t.Error("what was given back is not there")
	}
	for p := uint32(3); s.all < limits.RingStored; p++ {
		for s.take(identity.User(p)) {
		}
	}
	if s.take(identity.User(1000)) {
		t.Error("more than the service manager keeps")
	}
}
