//go:build linux

package ring

import (
	"os"

	"github.com/ipcd/ipcd/internal/attach"
	"github.com/ipcd/ipcd/internal/reason"
	"github.com/ipcd/ipcd/internal/shm"
)

// peers are the other members that a member knows, with a reference to the memory of each. The daemon
// sends a descriptor once on each connection, and a mapping outlives the connection.
type peers struct {
	role      attach.Role
	lanes     map[uint64]shm.LanePeer     // of a consumer, by id
	consumers map[uint64]shm.ConsumerPeer // of a producer, by id
}

func newPeers(role attach.Role) *peers {
	return &peers{role: role, lanes: map[uint64]shm.LanePeer{}, consumers: map[uint64]shm.ConsumerPeer{}}
}

// learn takes in a list of members and its files, which it closes, and returns everybody who is there
// now, with references of their own for whoever gets it.
func (p *peers) learn(list attach.Members, files []*os.File) (shm.Members, error) {
	defer received{files: files}.closeFiles()
	listed := make(map[uint64]bool, len(list.Entries))
	for _, e := range list.Entries {
		var file *os.File
		if e.File {
			file, files = files[0], files[1:] // the packet was checked to have as many as it says
		}
		listed[e.ID] = true
		if err := p.take(e, file); err != nil {
			return shm.Members{}, err
		}
	}
	if !list.Partial {
		p.forget(func(id uint64) bool { return !listed[id] })
	}
	return p.all(list.Epoch, list.Partial), nil
}

// take notes what the entry says. file is nil if the member's memory came before.
func (p *peers) take(e attach.Entry, file *os.File) error {
	switch {
	case e.Kind == attach.EntryLane && p.role == attach.Consumer:
		g := shm.Geometry{Capacity: e.Capacity, MaxFrame: e.MaxFrame}
		if err := g.Check(); err != nil {
			return newError(reason.Internal, "lane %d as the daemon describes it: %v", e.ID, err)
		}
		known, ok := p.lanes[e.ID]
		memory, err := mapPeer(known.Memory, ok, e, file, shm.LaneSize(g.Capacity))
		if err != nil {
			return err
		}
		p.lanes[e.ID] = shm.LanePeer{ID: e.ID, Epoch: e.Epoch, Slot: e.Slot, Geometry: g, Lossless: e.Lossless, Ended: e.Ended, PID: e.PID, Memory: memory}
	case e.Kind == attach.EntryConsumer && p.role == attach.Producer:
		known, ok := p.consumers[e.ID]
		memory, err := mapPeer(known.Memory, ok, e, file, shm.ConsumerSize)
		if err != nil {
			return err
		}
		p.consumers[e.ID] = shm.ConsumerPeer{ID: e.ID, Epoch: e.Epoch, Slot: e.Slot, Lossless: e.Lossless, PID: e.PID, Memory: memory}
	default:
		return newError(reason.Internal, "the daemon lists member %d, of kind %d, to a %s", e.ID, e.Kind, p.role)
	}
	return nil
}

// mapPeer returns the memory of a member: what is mapped already, or else the file's.
func mapPeer(known *shm.Memory, isKnown bool, e attach.Entry, file *os.File, size int64) (*shm.Memory, error) {
	if isKnown {
		return known, nil
	}
	if file == nil {
		return nil, newError(reason.Internal, "the daemon lists member %d without its memory", e.ID)
	}
	return mapFile(file, size, false)
}

// mapFile maps a file of the daemon's, which stays open. A file that is too short would fault later.
func mapFile(file *os.File, size int64, writable bool) (*shm.Memory, error) {
	info, err := file.Stat()
	if err != nil {
		return nil, newError(reason.Internal, "look at shared memory: %v", err).because(err)
	}
	if info.Size() != size {
		return nil, newError(reason.Internal, "the daemon sent shared memory of %d bytes, which should have %d", info.Size(), size)
	}
	memory, err := shm.Map(file, size, writable)
	if err != nil {
		return nil, newError(reason.QuotaExceeded, "%v; look at the limits of this process (ulimit -v, vm.max_map_count)", err).because(err)
	}
	return memory, nil
}

// all lists everybody who is known.
func (p *peers) all(epoch uint64, partial bool) shm.Members {
	m := shm.Members{Epoch: epoch, Partial: partial}
	for _, lane := range p.lanes {
		lane.Memory.Retain()
		m.Lanes = append(m.Lanes, lane)
	}
	for _, consumer := range p.consumers {
		consumer.Memory.Retain()
		m.Consumers = append(m.Consumers, consumer)
	}
	return m
}

// forget gives back the memory of those who are gone.
func (p *peers) forget(gone func(id uint64) bool) {
	for id, lane := range p.lanes {
		if gone(id) {
			lane.Memory.Release()
			delete(p.lanes, id)
		}
	}
	for id, consumer := range p.consumers {
		if gone(id) {
			consumer.Memory.Release()
			delete(p.consumers, id)
		}
	}
}

func (p *peers) release() { p.forget(func(uint64) bool { return true }) }

// drop gives back what nobody will use.
func drop(m shm.Members) {
	m.Page.Release()
	for _, lane := range m.Lanes {
		lane.Memory.Release()
	}
	for _, consumer := range m.Consumers {
		consumer.Memory.Release()
	}
}
