package ring

import (
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
	"github.com/ipcd/ipcd/internal/shm"
)

// FDStore keeps descriptors while there is no daemon, over a restart and a crash: the service manager's fd store.
//
// Members keep their memory themselves, and bring it back. Lanes whose producers have left have nobody but the daemon:
// they are stored when the producer leaves. So has the daemon's own lane, which is stored when it is made; the next
// daemon can not go on writing it, since sealed memory cannot be mapped writable again, and has it as a lane that has
// ended. Stores are small, and what goes beyond is dropped silently, so nothing else is stored.
type FDStore interface {
	// Store keeps a file under a name: ASCII without control characters and colons. The file stays the caller's.
	Store(name string, f *os.File) error
	// Discard closes what is kept under the name, if anything.
	Discard(name string) error
}

// StoredFD is what a store has kept.
type StoredFD struct {
	Name string
	File *os.File
}

// keptLane is the name of a lane in the store. It tells what the memory does not, or not reliably: producers could
// write the memory's header.
type keptLane struct {
	ring, member uint64
	slot         uint32
	epoch        uint64 // at which it joined
	uid, pid     uint32
	order        uint64 // run of the daemon << 32 | number: lanes that have ended later have more
	daemon       bool   // it was the daemon's own
	token        [32]byte
}

// lastOrder is the number of a lane that has not ended: it is younger than all that have ended in that run.
const lastOrder = 1<<32 - 1

func (k *keptLane) String() string {
	kind := "member"
	if k.daemon {
		kind = "daemon"
	}
	return fmt.Sprintf("lane.%x.%x.%x.%x.%x.%x.%x.%s.%s", k.ring, k.member, k.slot, k.epoch, k.uid, k.pid, k.order, kind,
		base64.RawURLEncoding.EncodeToString(k.token[:]))
}

// parseKept is the inverse of String.
func parseKept(name string) (k keptLane, ok bool) {
	parts := strings.Split(name, ".")
	if len(parts) != 10 {
		return k, false
	}
	number := func(i, bits int) uint64 {
		n, _ := strconv.ParseUint(parts[i], 16, bits) // what it cannot read does not come out again below
		return n
	}
	k = keptLane{ring: number(1, 64), member: number(2, 64), slot: uint32(number(3, 32)), epoch: number(4, 64), uid: uint32(number(5, 32)),
		pid: uint32(number(6, 32)), order: number(7, 64), daemon: parts[8] == "daemon"}
	token, err := base64.RawURLEncoding.DecodeString(parts[9])
	if err != nil || len(token) != len(k.token) {
		return k, false
	}
	copy(k.token[:], token)
	return k, k.String() == name
}

// shelf is what is in the store. A service manager takes so many descriptors and drops more without a word: nobody's
// lanes are to push out another's.
type shelf struct {
	mu  sync.Mutex // guards what follows; the last lock taken
	all int
	of  map[identity.Principal]int
}

// take reports whether there is room for one more lane that a principal pays for, and counts it then.
func (s *shelf) take(p identity.Principal) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all >= limits.RingStored || s.of[p] >= limits.RingStoredPerUID {
		return false
	}
	if s.of == nil {
		s.of = map[identity.Principal]int{}
	}
	s.all++
	s.of[p]++
	return true
}

func (s *shelf) give(p identity.Principal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all--
	if s.of[p]--; s.of[p] == 0 {
		delete(s.of, p)
	}
}

// keep stores a lane of which the daemon is the only keeper, unless it was given up already. No lock may be held.
func (m *Member) keep(memory *memory) {
	r := m.ring.rings
	if r.store == nil || memory == nil || m.ring.settings.Load().Retain < int64(m.geometry.Capacity) {
		return // as a lane that has ended it would not be retained
	}
	memory.keeping.Lock()
	defer memory.keeping.Unlock()
	if memory.givenUp || memory.kept != "" {
		return
	}
	payer := memory.charge.payer
	if !r.shelf.take(payer) {
		r.log.Warn("a lane is not stored, since there are too many: it would not survive a restart", zap.String("ring", m.ring.name), zap.Uint64("id", m.id), zap.Stringer("of", payer))
		return
	}
	inode, err := shm.Inode(memory.readOnly)
	if err == nil {
		k := keptLane{ring: m.ring.id, member: m.id, slot: m.slot, epoch: m.granted, uid: m.who.UID, pid: m.pid, daemon: m.daemon,
			order: r.run<<32 + min(r.lastEnded.Add(1), lastOrder), token: r.token(m.ring.id, m, inode)}
		if m.daemon {
			k.order = r.run<<32 + lastOrder
		}
		if err = r.store.Store(k.String(), memory.readOnly); err == nil {
			memory.kept = k.String()
			return
		}
	}
	r.shelf.give(payer)
	r.log.Warn("a lane could not be stored: it would not survive a restart", zap.String("ring", m.ring.name), zap.Uint64("id", m.id), zap.Error(err))
}

// giveUp has the store forget memory, and nobody store it any more.
func (r *Rings) giveUp(memory *memory) {
	memory.keeping.Lock()
	defer memory.keeping.Unlock()
	memory.givenUp = true
	if memory.kept != "" {
		r.discard(memory.kept)
		r.shelf.give(memory.charge.payer)
		memory.kept = ""
	}
}

func (r *Rings) discard(name string) {
	if r.store == nil {
		return
	}
	if err := r.store.Discard(name); err != nil {
		r.log.Warn("a descriptor could not be discarded: the service manager keeps its memory", zap.String("name", name), zap.Error(err))
	}
}

// restore takes back the lanes that were stored, and closes and discards all else. It is part of Open.
func (r *Rings) restore(stored []StoredFD) {
	type named struct {
		StoredFD
		keptLane
	}
	var lanes []named
	for _, s := range stored {
		if k, ok := parseKept(s.Name); ok {
			lanes = append(lanes, named{s, k})
			continue
		}
		r.log.Warn("the service manager has kept what is no lane: it is discarded", zap.String("name", s.Name))
		s.File.Close()
		r.discard(s.Name)
	}
	// The youngest first, in case there is no room for all.
	slices.SortStableFunc(lanes, func(a, b named) int { return cmp.Compare(b.order, a.order) })
	names := map[string]bool{}
	restored := 0
	for _, l := range lanes {
		err := r.restoreLane(&l.keptLane, l.File)
		l.File.Close()
		if err == nil {
			names[l.Name] = true
			restored++
			continue
		}
		r.log.Warn("a lane that was kept over the restart is given up", zap.String("name", l.Name), zap.Error(err))
		if !names[l.Name] { // else the one of that name that is in use would be discarded too
			r.discard(l.Name)
		}
	}
	for _, rg := range r.all() {
		rg.enforce(nil)
	}
	if restored > 0 {
		r.log.Info("lanes have survived the restart", zap.Int("lanes", restored))
	}
}

// restoreLane makes stored memory a lane that has ended. It is believed no more than what a stranger hands in: see Adopt.
func (r *Rings) restoreLane(k *keptLane, file *os.File) error {
	var rg *ring
	for _, other := range r.all() {
		if other.id == k.ring {
			rg = other
		}
	}
	if rg == nil {
		return errors.New("its ring does not exist any more")
	}
	if k.slot >= slots {
		return fmt.Errorf("slot %d: it must be below %d", k.slot, slots)
	}
	who := identity.Identity{Kind: identity.Unix, UID: k.uid}
	m, err := rg.newMember(who, Producer, false)
	if err != nil {
		return err
	}
	m.id, m.slot, m.granted, m.daemon, m.pid = k.member, k.slot, k.epoch, k.daemon, k.pid
	if err := r.verify(m, file, k.token); err != nil {
		return err
	}
	if err := rg.adoptOnce(m.id); err != nil {
		return err
	}
	if !r.shelf.take(who.Principal()) {
		return errors.New("too many lanes are stored")
	}
	c, short := rg.tryReserve(m, int(k.slot), who.Principal(), m.size())
	if short != nil {
		r.shelf.give(who.Principal())
		return short.err
	}
	memory, err := reopen(file, m.size(), c)
	if err != nil {
		r.shelf.give(who.Principal())
		rg.unreserve(m)
		return err
	}
	memory.kept = k.String()
	c.left()
	rg.mu.Lock()
	defer rg.mu.Unlock()
	m.memory, m.state, m.at, m.joined = memory, ended, time.Now(), m.granted
	rg.ended = slices.Insert(rg.ended, 0, m)
	rg.raiseLocked()
	m.announced = rg.epoch
	m.err = reason.New(reason.Cancelled, "the member has left the ring").On(rg.name)
	return nil
}
