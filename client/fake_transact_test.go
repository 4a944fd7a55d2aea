package client

import (
	"context"
	"fmt"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

func (f *fake) Transact(_ context.Context, r *ipcdv1.TransactRequest) (*ipcdv1.TransactResponse, error) {
	f.mu.Lock()
	f.batches++
	n, h := f.batches, f.hooks
	f.mu.Unlock()
	if h.beforeStore != nil {
		if err := h.beforeStore(n); err != nil {
			return nil, statusOf(err.(*reason.Error))
		}
	}
	stored, e := f.transactOnce(r)
	if h.afterStore != nil {
		h.afterStore(n)
	}
	if e != nil {
		return nil, statusOf(e)
	}
	return &ipcdv1.TransactResponse{Stored: stored}, nil
}

// transactOnce does all of it, or says why not.
func (f *fake) transactOnce(r *ipcdv1.TransactRequest) ([]*ipcdv1.Stored, *reason.Error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	defer f.changedLocked()
	f.seen = append(f.seen, fmt.Sprintf("transact %d sends %d acks %s", len(r.GetSends()), len(r.GetReceipts()), strings.Trim(r.GetProducerId(), "/")))
	key := fmt.Sprintf("%s %d", r.GetProducerId(), r.GetBatchId())
	if stored, ok := f.done[key]; ok && len(r.GetSends()) > 0 {
		return stored, nil
	}
	if len(r.GetSends()) > 0 && r.GetInstance() != f.instance {
		return nil, reason.New(reason.OutcomeUnknown, "another instance")
	}
	for i, s := range r.GetSends() {
		q := f.queues[s.GetQueue()]
		if q == nil {
			return nil, reason.New(reason.QueueNotFound, "no queue %s", s.GetQueue()).On(s.GetQueue()).At(i)
		}
		if most := q.p.GetSettings().MaxMessages; most != nil && len(q.messages)+len(s.GetMessages()) > int(*most) {
			return nil, reason.New(reason.QueueFull, "full").On(s.GetQueue()).At(i)
		}
	}
	for i, receipt := range r.GetReceipts() {
		if !f.heldLocked(receipt) {
			return nil, reason.New(reason.StaleReceipt, "stale").At(len(r.GetSends()) + i)
		}
	}
	for _, receipt := range r.GetReceipts() {
		f.ackLocked(receipt)
	}
	var stored []*ipcdv1.Stored
	for _, s := range r.GetSends() {
		q := f.queues[s.GetQueue()]
		stored = append(stored, &ipcdv1.Stored{FirstSequence: q.next + 1, Count: uint32(len(s.GetMessages())), SendTime: timestamppb.Now()})
		for _, m := range s.GetMessages() {
			q.next++
			q.messages = append(q.messages, &fakeMessage{m: m, sequence: q.next})
		}
	}
	f.done[key] = stored
	return stored, nil
}

func (f *fake) heldLocked(receipt string) bool {
	for _, q := range f.queues {
		for _, m := range q.messages {
			if m.leased && m.receipt() == receipt {
				return true
			}
		}
	}
	return false
}

func (f *fake) ackLocked(receipt string) {
	for _, q := range f.queues {
		for i, m := range q.messages {
			if m.leased && m.receipt() == receipt {
				q.messages = append(q.messages[:i:i], q.messages[i+1:]...)
				return
			}
		}
	}
}

// Backup hands out the archive in small pieces.
func (f *fake) Backup(_ *ipcdv1.BackupRequest, stream grpc.ServerStreamingServer[ipcdv1.BackupResponse]) error {
	f.mu.Lock()
	archive := f.archive
	f.mu.Unlock()
	if archive == nil {
		return statusOf(reason.New(reason.AccessDenied, "only admins may"))
	}
	const piece = 700
	for done := 0; done < len(archive); {
		n := min(piece, len(archive)-done)
		if err := stream.Send(&ipcdv1.BackupResponse{Data: archive[done : done+n], DoneBytes: int64(done + n), TotalBytes: int64(len(archive))}); err != nil {
			return err
		}
		done += n
	}
	return nil
}
