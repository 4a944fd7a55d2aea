package shmring

import (
	"context"
	"os"

	"github.com/ipcd/ipcd/broker/ring"
	"github.com/ipcd/ipcd/internal/attach"
	"github.com/ipcd/ipcd/internal/identity"
)

// Over is the broker's rings as the server sees them.
func Over(r *ring.Rings) Rings { return over{r} }

type over struct{ rings *ring.Rings }

func (o over) Attach(ctx context.Context, id identity.Identity, q attach.Attach) (Joining, error) {
	j, err := o.rings.Attach(ctx, id, ring.AttachRequest{Name: q.Name, Role: ring.Role(q.Role), Lossless: q.Lossless})
	if err != nil {
		return nil, err // not a nil *ring.Joining in the interface
	}
	return overJoining{j}, nil
}

func (o over) Adopt(ctx context.Context, id identity.Identity, q attach.Adopt, memory *os.File) (Member, error) {
	m, err := o.rings.Adopt(ctx, id, ring.AdoptRequest{
		Name: q.Name, Role: ring.Role(q.Role), Lossless: q.Lossless,
		RingID: q.RingID, MemberID: q.MemberID, Slot: q.Slot, Epoch: q.Epoch, Token: q.Token,
	}, memory)
	if err != nil {
		return nil, err
	}
	return overMember{m}, nil
}

type overJoining struct{ *ring.Joining }

func (j overJoining) Header() attach.Memory {
	h := j.Joining.Header()
	return attach.Memory{
		RingID: h.RingID, MemberID: h.MemberID, Slot: h.Slot, Lossless: h.Lossless,
		Capacity: h.Geometry.Capacity, MaxFrame: h.Geometry.MaxFrame, Stall: h.Stall, Epoch: h.Epoch, Size: uint64(h.Size),
	}
}

func (j overJoining) Ready() (Member, error) {
	m, err := j.Joining.Ready()
	if err != nil {
		return nil, err
	}
	return overMember{m}, nil
}

type overMember struct{ *ring.Member }

func (m overMember) Members(sent func(id uint64) bool) (attach.Members, []*os.File, error) {
	listing, err := m.Member.Members(sent)
	if err != nil {
		return attach.Members{}, nil, err
	}
	members := attach.Members{Epoch: listing.Epoch, Partial: listing.Partial}
	var files []*os.File
	for _, e := range listing.Entries {
		entry := attach.Entry{
			ID: e.ID, Epoch: e.Epoch, Kind: attach.EntryLane, Slot: e.Slot, Lossless: e.Lossless, Ended: e.Ended, File: e.File != nil, Daemon: e.Daemon,
			PID: e.PID, UID: e.UID, Size: uint64(e.Size), Capacity: e.Geometry.Capacity, MaxFrame: e.Geometry.MaxFrame,
		}
		if e.Kind == ring.Consumer {
			entry.Kind = attach.EntryConsumer
		}
		if e.File != nil {
			files = append(files, e.File)
		}
		members.Entries = append(members.Entries, entry)
	}
	return members, files, nil
}
