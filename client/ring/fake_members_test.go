//go:build linux

package ring

import (
	"crypto/rand"
	"errors"
	"os"
	"slices"

	"github.com/ipcd/ipcd/internal/attach"
	"github.com/ipcd/ipcd/internal/shm"
)

func (f *fake) attach(q attach.Attach) (*fakeMember, attach.Reply, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m := &fakeMember{role: q.Role, lossless: q.Role == attach.Consumer && q.Lossless, size: shm.ConsumerSize}
	if q.Role == attach.Producer {
		m.size = shm.LaneSize(f.geometry.Capacity)
		m.lossless = f.lossless
	}
	m.slot = f.slotLocked(q.Role)
	f.lastID++
	m.id = f.run<<32 | f.lastID
	m.epoch = f.epoch + 1
	var err error
	if m.file, err = shm.CreateMemory("member", m.size); err != nil {
		return nil, nil, err
	}
	if m.memory, err = shm.Map(m.file, m.size, true); err != nil {
		return nil, nil, err
	}
	m.readOnly, err = shm.Reopen(m.file, os.O_RDONLY)
	return m, attach.Memory{
		RingID: ringID, MemberID: m.id, Slot: m.slot, Lossless: m.lossless, Capacity: f.geometry.Capacity,
		MaxFrame: f.geometry.MaxFrame, Stall: f.stall, Epoch: m.epoch, Size: uint64(m.size),
	}, err
}

// slotLocked returns a free slot; to have one, it forgets the oldest lane that ended.
func (f *fake) slotLocked(role attach.Role) uint32 {
	taken := map[uint32]bool{}
	ended := (*fakeMember)(nil)
	for _, m := range f.members {
		if m.role == role {
			taken[m.slot] = true
			if m.ended && (ended == nil || m.id < ended.id) {
				ended = m
			}
		}
	}
	for slot := range uint32(shm.MaxLanes) {
		if !taken[slot] {
			return slot
		}
	}
	delete(f.members, ended.id)
	ended.close()
	return ended.slot
}

func (f *fake) ready(m *fakeMember) error {
	if err := shm.CloseToWriters(m.file, m.size); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.members[m.id] = m
	f.raiseLocked()
	return nil
}

func (f *fake) adopt(q attach.Adopt, file *os.File) (*fakeMember, error) {
	m := &fakeMember{id: q.MemberID, epoch: q.Epoch, slot: q.Slot, role: q.Role, lossless: q.Lossless, size: shm.ConsumerSize}
	if q.Role == attach.Producer {
		m.size, m.lossless = shm.LaneSize(f.geometry.Capacity), f.lossless
	}
	if err := shm.Verify(file, m.size); err != nil {
		return nil, err
	}
	inode, err := shm.Inode(file)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	given := slices.Clone(f.tokens[q.MemberID])
	f.mu.Unlock()
	if q.RingID != ringID || q.Lossless != m.lossless || !slices.Contains(given, token{q.Token, inode}) {
		return nil, errors.New("the token is wrong")
	}
	if m.file, err = shm.Reopen(file, os.O_RDWR); err != nil {
		return nil, err
	}
	if m.readOnly, err = shm.Reopen(file, os.O_RDONLY); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.members[m.id] = m
	f.raiseLocked()
	return m, nil
}

// token is what a member was given, and for which memory.
type token struct {
	value [32]byte
	inode uint64
}

// token makes a new one. The one before counts too: a run may end before the member has got the new one.
func (f *fake) token(m *fakeMember) [32]byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	inode, err := shm.Inode(m.readOnly)
	if err != nil {
		panic(err)
	}
	t := token{inode: inode}
	rand.Read(t.value[:])
	given := append(f.tokens[m.id], t)
	f.tokens[m.id] = given[max(0, len(given)-2):]
	return t.value
}

func (f *fake) list(role attach.Role, sent map[uint64]bool) (attach.Reply, []*os.File) {
	f.mu.Lock()
	defer f.mu.Unlock()
	reply := attach.Members{Epoch: f.epoch, Partial: f.partial}
	var files []*os.File
	for _, m := range f.members {
		if m.role == role {
			continue
		}
		e := attach.Entry{ID: m.id, Epoch: m.epoch, Kind: attach.EntryConsumer, Slot: m.slot, Lossless: m.lossless, Ended: m.ended, PID: 1, Size: uint64(m.size)}
		if m.role == attach.Producer {
			e.Kind, e.Capacity, e.MaxFrame = attach.EntryLane, f.geometry.Capacity, f.geometry.MaxFrame
		}
		if !sent[m.id] {
			sent[m.id] = true
			e.File = true
			again, err := shm.Reopen(m.readOnly, os.O_RDONLY) // the member may leave before it is sent
			if err != nil {
				panic(err)
			}
			files = append(files, again)
		}
		reply.Entries = append(reply.Entries, e)
	}
	return reply, files
}

// leaveLocked lets a lane end, and a consumer go.
func (f *fake) leaveLocked(m *fakeMember) {
	if m.role == attach.Producer {
		m.ended = true
	} else {
		delete(f.members, m.id)
		m.close()
	}
	f.raiseLocked()
}
