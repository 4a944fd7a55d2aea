package ring

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ipcd/ipcd/internal/reason"
	"github.com/ipcd/ipcd/internal/shm"
)

func TestProducerOfAKeptLaneCanNotComeBack(t *testing.T) {
	w := newKeptWorld(t, Options{AdoptWindow: hour})
	w.create(alice, "/r", small)
	p := w.producer(alice, "/r").keep(t, alice, "/r")
	p.Leave("test")
	w.restart()
	_, err := w.adopt(p)
	wants(t, err, reason.AccessDenied, "attach anew")
}

func TestWhatIsNotTheDaemonsIsNotRestored(t *testing.T) {
	w := newKeptWorld(t, Options{})
	w.create(alice, "/r", small)
	w.create(alice, "/s", small)
	w.wrote("/r", 1)
	name := w.manager.names()[0]
	good, ok := parseKept(name)
	if !ok {
		t.Fatal(name)
	}
	with := func(change func(*keptLane)) string {
		k := good
		change(&k)
		return k.String()
	}
	pipe, end, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	defer end.Close()
	regular := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(regular, make([]byte, laneSize), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(regular)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	unsealed, err := shm.CreateMemory("test", laneSize)
	if err != nil {
		t.Fatal(err)
	}
	defer unsealed.Close()
	lane := w.manager.kept[name]
	for what, c := range map[string]StoredFD{
		"no name":           {"", lane},
		"another name":      {"socket", lane},
		"a name cut short":  {name[:len(name)-1], lane},
		"a longer name":     {name + ".", lane},
		"a number too long": {strings.Replace(name, "lane.1.", "lane.00000000000000001.", 1), lane},
		"no number":         {strings.Replace(name, "lane.1.", "lane.x.", 1), lane},
		"another ring":      {with(func(k *keptLane) { k.ring = 2 }), lane},
		"no ring":           {with(func(k *keptLane) { k.ring = 99 }), lane},
		"another lane":      {with(func(k *keptLane) { k.member-- }), lane},
		"of this run":       {with(func(k *keptLane) { k.member += 2 << 32 }), lane},
		"another slot":      {with(func(k *keptLane) { k.slot = 1 }), lane},
		"no slot":           {with(func(k *keptLane) { k.slot = slots }), lane},
		"slot -1":           {with(func(k *keptLane) { k.slot = 1<<32 - 1 }), lane},
		"another epoch":     {with(func(k *keptLane) { k.epoch++ }), lane},
		"another uid":       {with(func(k *keptLane) { k.uid = bob.UID }), lane},
		"another token":     {with(func(k *keptLane) { k.token[0] ^= 1 }), lane},
		"no slot, with a token": {with(func(k *keptLane) {
			k.slot = slots
			inode, err := shm.Inode(lane)
			if err != nil {
				t.Fatal(err)
			}
			k.token = w.token(k.ring, &Member{role: Producer, id: k.member, slot: k.slot, granted: k.epoch, who: alice}, inode)
		}), lane},
		"a pipe":               {name, pipe},
		"a file":               {name, file},
		"memory of its own":    {name, unsealed},
		"a directory as it is": {name, func() *os.File { d, _ := os.Open("/"); t.Cleanup(func() { d.Close() }); return d }()},
	} {
		t.Run(what, func(t *testing.T) {
			m := newManager(t)
			f, err := duplicate(c.File)
			if err != nil {
				t.Fatal(err)
			}
			m.kept[c.Name] = f
			w.Close()
			before := descriptors(t)
			w.o.Stored, w.o.FDStore = m.gives(), m
			w.start()
			if n := w.Totals().Lanes + int(w.Totals().Bytes); n != 0 {
				t.Errorf("restored: %+v", w.Totals())
			}
			if got := m.names(); len(got) != 0 {
				t.Errorf("kept: %q", got)
			}
			w.Close()
			if after := descriptors(t); after != before-1 { // the manager's own
				t.Errorf("%d descriptors, %d were before", after, before-1)
			}
			w.o.Stored = nil
			w.start()
		})
	}
	w.o.FDStore = w.manager
	w.restart()
	if n := w.Totals().Lanes; n != 1 { // what is true still is
		t.Errorf("%d lanes", n)
	}
}

func TestTheSameLaneIsRestoredOnce(t *testing.T) {
	w := newKeptWorld(t, Options{})
	w.create(alice, "/r", small)
	w.wrote("/r", 1)
	w.Close()
	w.o.Stored = append(w.manager.gives(), w.manager.gives()...)
	w.start()
	if n := w.Totals().Lanes; n != 1 || len(w.manager.names()) != 1 {
		t.Errorf("%d lanes, kept: %v", n, w.manager.names())
	}
}

func TestStoredFilesAreClosedIfNothingOpens(t *testing.T) {
	w := newKeptWorld(t, Options{})
	w.create(alice, "/r", small)
	w.wrote("/r", 1)
	w.Close()
	o := w.o
	o.Stored = w.manager.gives()
	o.Dir = filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(o.Dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(o); err == nil {
		t.Fatal("opened")
	}
	if _, err := unix.FcntlInt(o.Stored[0].File.Fd(), unix.F_GETFD, 0); err == nil {
		t.Error("it is still open")
	}
	if len(w.manager.names()) != 1 {
		t.Error("it was discarded, although another start may understand it")
	}
}

func TestWhatIsGivenUpFirstIsNotStored(t *testing.T) {
	w := newKeptWorld(t, Options{})
	w.create(alice, "/r", small)
	p := w.producer(alice, "/r")
	w.giveUp(p.Member.memory)
	p.Member.keep(p.Member.memory)
	if got := w.manager.names(); len(got) != 0 {
		t.Errorf("kept: %v", got)
	}
}

// Whoever wins, what was given up is not in the store.
func TestLanesThatEndAndAreGivenUpAtOnceAreNotKept(t *testing.T) {
	w := newKeptWorld(t, Options{})
	for i := range 200 {
		w.create(alice, "/r", small)
		p := w.producer(alice, "/r")
		p.die()
		var both sync.WaitGroup
		both.Go(func() { p.Leave("test") })
		if i%2 == 0 {
			both.Go(func() { _, _, _ = w.Publish(context.Background(), alice, "/r", messages(1)) })
		}
		if _, err := w.Delete(context.Background(), alice, "/r"); err != nil {
			t.Fatal(err)
		}
		both.Wait()
		if got := w.manager.names(); len(got) != 0 {
			t.Fatalf("round %d: kept: %v", i, got)
		}
	}
}

func FuzzNamesOfKeptLanes(f *testing.F) {
	k := keptLane{ring: 1, member: 1<<32 + 2, slot: 63, epoch: 1<<32 + 7, uid: 1000, pid: 4711, order: 1<<32 + 1}
	f.Add(k.String())
	k = keptLane{ring: 1<<64 - 1, member: 1<<64 - 1, slot: 1<<32 - 1, epoch: 1<<64 - 1, uid: 1<<32 - 1, pid: 1<<32 - 1, order: 1<<64 - 1, daemon: true}
	for i := range k.token {
		k.token[i] = 0xff
	}
	f.Add(k.String())
	f.Add("lane.........")
	f.Add(fmt.Sprint("lane.", strings.Repeat("1.", 1000)))
	f.Fuzz(func(t *testing.T, name string) {
		if k, ok := parseKept(name); ok && (k.String() != name || len(name) > 240) {
			t.Errorf("%q became %q", name, k.String())
		}
	})
}
