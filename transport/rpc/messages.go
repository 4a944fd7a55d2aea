package rpc

import (
	"context"
	"slices"

	"github.com/ipcd/ipcd/broker"
	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// messages serves ipcd.v1.MessageService.
type messages struct {
	ipcdv1.UnimplementedMessageServiceServer
	*Server
}

func (s messages) Send(ctx context.Context, r *ipcdv1.SendRequest) (*ipcdv1.SendResponse, error) {
	batch, err := decodeBatch(r.Messages, nil)
	if err != nil {
		return nil, onQueue(err, r.Queue)
	}
	wait, err := decodeWait(r.Wait)
	if err != nil {
		return nil, err
	}
	stored, err := s.broker.Send(ctx, callerFrom(ctx), broker.SendRequest{
		Queue: r.Queue, Messages: batch, Producer: r.ProducerId, Batch: r.BatchId, Instance: r.Instance, Wait: wait,
	})
	if err != nil {
		return nil, err
	}
	return &ipcdv1.SendResponse{Stored: encodeStored(stored)}, nil
}

// onQueue adds the queue's name to an error that has none.
func onQueue(err error, name string) error {
	if e, ok := err.(*reason.Error); ok {
		return e.On(name)
	}
	return err
}

func (s messages) Receive(ctx context.Context, r *ipcdv1.ReceiveRequest) (*ipcdv1.ReceiveResponse, error) {
	request, err := decodeReceive(r)
	if err != nil {
		return nil, onQueue(err, r.Queue)
	}
	caller := callerFrom(ctx)
	deliveries, err := s.broker.Receive(ctx, caller, request)
	if err != nil {
		return nil, err
	}
	// The caller may have gone while messages were leased for it: they must not wait for the lease's end.
	if err := ctx.Err(); err != nil {
		s.release(ctx, caller, deliveries)
		return nil, err
	}
	if n := fitting(deliveries); n < len(deliveries) && !request.Consume {
		s.release(ctx, caller, deliveries[n:])
		deliveries = deliveries[:n]
	}
	return &ipcdv1.ReceiveResponse{Deliveries: new(deliverySlab).encode(deliveries, request.Queue, true)}, nil
}

func decodeReceive(r *ipcdv1.ReceiveRequest) (out broker.ReceiveRequest, err error) {
	out = broker.ReceiveRequest{Queue: r.Queue, MaxBody: decodeBody(r.MaxBodyBytes), Truncate: r.Truncate}
	if len(r.Queues) > 0 {
		if err := checkQueues(r); err != nil {
			return out, err
		}
		if out.Queues = r.Queues; len(r.Queues) == 1 {
			out.Queue, out.Queues = r.Queues[0], nil
		}
	}
	if out.Selector, err = decodeSelector(r.Selector); err != nil {
		return out, err
	}
	if r.MaxMessages > limits.ReceiveMessages {
		return out, reason.Invalid("max_messages", "max_messages %d: it must be 0 (for 1) to %d", r.MaxMessages, limits.ReceiveMessages)
	}
	out.Max = max(int(r.MaxMessages), 1)
	if r.Truncate && r.MaxBodyBytes == 0 {
		return out, reason.Invalid("truncate", "truncate without max_body_bytes: say how large the buffer is")
	}
	if out.Wait, err = decodeDuration("wait", r.Wait, 0, 0, limits.WaitMax); err != nil {
		return out, err
	}
	if out.Lease, err = decodeLease(r.Lease); err != nil {
		return out, err
	}
	out.Consume, err = decodeConsume(r.SettleMode)
	return out, err
}

// checkQueues says what is wrong with the names of several queues. Whether these are names the broker says.
func checkQueues(r *ipcdv1.ReceiveRequest) error {
	if r.Queue != "" {
		return reason.Invalid("queues", "both queue and queues are set: name one queue, or several in queues")
	}
	if len(r.Queues) > limits.ReceiveQueues {
		return reason.Invalid("queues", "%d queues: a receive may name %d", len(r.Queues), limits.ReceiveQueues)
	}
	seen := make(map[string]bool, len(r.Queues))
	for i, name := range r.Queues {
		if seen[name] {
			return reason.Invalid("queues", "queue %.200q is named twice: name each once", name).At(i)
		}
		seen[name] = true
	}
	return nil
}

// wireBytes is about what a delivery takes in a frame, and never less.
func wireBytes(d *queue.Delivery) int { return d.Bytes() + 256 + 16*len(d.Headers) }

// fitting returns how many deliveries fit an answer, at least 1. The broker's own limit counts no
// framing, which many tiny headers can multiply.
func fitting(deliveries []queue.Delivery) int {
	total := 0
	for i := range deliveries {
		if total += wireBytes(&deliveries[i]); total > limits.FrameBytes && i > 0 {
			return i
		}
	}
	return len(deliveries)
}

// release gives leases back, uncounted, whether or not the caller is still there.
func (s *Server) release(ctx context.Context, caller identity.Identity, deliveries []queue.Delivery) {
	var back []broker.Settlement
	for _, d := range deliveries {
		if d.Receipt != (queue.Receipt{}) {
			back = append(back, broker.Settlement{Receipt: d.Receipt, Verdict: broker.Verdict{Outcome: broker.Release}})
		}
	}
	if len(back) == 0 {
		return
	}
	// Errors change nothing: a lease that is over, or of a queue that is gone, needs no release.
	_, _ = s.broker.Settle(context.WithoutCancel(ctx), caller, back)
}

func (s messages) Settle(ctx context.Context, r *ipcdv1.SettleRequest) (*ipcdv1.SettleResponse, error) {
	settled, _, err := s.settle(ctx, callerFrom(ctx), r.Settlements, nil)
	if err != nil {
		return nil, err
	}
	return &ipcdv1.SettleResponse{
		Failures: s.encodeFailures(ipcdv1.MessageService_Settle_FullMethodName, settled.Failures),
		Touched:  encodeTouched(settled.Touched),
	}, nil
}

// tagSettler settles by the tags of a Consume stream.
type tagSettler interface {
	Settle([]broker.TagSettlement) (broker.Settled, broker.Ticket, error)
}

// settle settles by receipt and, in a Consume stream, by tag. tags is nil elsewhere. A settlement that
// makes no sense fails by itself, like one that came too late. Those by receipt wait for the disk here,
// those by tag are for the caller to await.
func (s *Server) settle(ctx context.Context, caller identity.Identity, list []*ipcdv1.Settlement, tags tagSettler) (broker.Settled, broker.Ticket, error) {
	if len(list) == 0 {
		return broker.Settled{}, 0, reason.Invalid("settlements", "no settlements: there must be 1 to %d", limits.SettlementsPerFrame)
	}
	if len(list) > limits.SettlementsPerFrame {
		return broker.Settled{}, 0, reason.Invalid("settlements", "%d settlements: there may be %d at once; split them", len(list), limits.SettlementsPerFrame)
	}
	var (
		all          broker.Settled
		byReceipt    []broker.Settlement
		byTag        []broker.TagSettlement
		receiptIndex []int // in list, of each in byReceipt
		tagIndex     []int
	)
	for i, settlement := range list {
		verdict, err := decodeVerdict(settlement)
		if err == nil {
			switch target := settlement.Target.(type) {
			case *ipcdv1.Settlement_Receipt:
				var receipt queue.Receipt
				if receipt, err = queue.ParseReceipt(target.Receipt); err == nil {
					byReceipt = append(byReceipt, broker.Settlement{Receipt: receipt, Verdict: verdict})
					receiptIndex = append(receiptIndex, i)
				}
			case *ipcdv1.Settlement_Tags:
				if err = checkTags(target.Tags, tags != nil); err == nil {
					byTag = append(byTag, broker.TagSettlement{First: target.Tags.GetFirst(), Last: target.Tags.GetLast(), Verdict: verdict})
					tagIndex = append(tagIndex, i)
				}
			default:
				err = reason.Invalid("target", "a settlement without a target: name a receipt, or tags of a Consume stream")
			}
		}
		if err != nil {
			all.Failures = append(all.Failures, broker.SettleFailure{Index: i, Err: err})
		}
	}
	if len(byReceipt) > 0 {
		settled, err := s.broker.Settle(ctx, caller, byReceipt)
		if err != nil {
			return all, 0, err
		}
		merge(&all, settled, receiptIndex)
	}
	var ticket broker.Ticket
	if len(byTag) > 0 {
		var settled broker.Settled
		var err error
		if settled, ticket, err = tags.Settle(byTag); err != nil {
			return all, ticket, err
		}
		merge(&all, settled, tagIndex)
	}
	return all, ticket, nil
}

func checkTags(tags *ipcdv1.TagRange, inConsume bool) error {
	switch {
	case !inConsume:
		return reason.Invalid("tags", "tags name deliveries of a Consume stream and mean nothing outside of it: settle by receipt")
	case tags.GetFirst() > tags.GetLast():
		return reason.Invalid("tags", "tags %d to %d: the last must not lie below the first", tags.GetFirst(), tags.GetLast())
	}
	return nil
}

// merge adds some to all. index maps some's places to those of all, where failures stand in order.
func merge(all *broker.Settled, some broker.Settled, index []int) {
	for _, f := range some.Failures {
		f.Index = index[f.Index]
		all.Failures = append(all.Failures, f)
	}
	slices.SortStableFunc(all.Failures, func(a, b broker.SettleFailure) int { return a.Index - b.Index })
	for _, t := range some.Touched {
		t.Index = index[t.Index]
		all.Touched = append(all.Touched, t)
	}
}

func (s *Server) encodeFailures(method string, failures []broker.SettleFailure) []*ipcdv1.SettleFailure {
	var out []*ipcdv1.SettleFailure
	for _, f := range failures {
		out = append(out, &ipcdv1.SettleFailure{Index: uint32(f.Index), Tag: f.Tag, Error: s.toError(method, f.Err)})
	}
	return out
}

func encodeTouched(touched []broker.Touched) []*ipcdv1.TouchedLease {
	var out []*ipcdv1.TouchedLease
	for _, t := range touched {
		out = append(out, &ipcdv1.TouchedLease{Index: uint32(t.Index), LeaseExpireTime: encodeTime(t.LeaseEnds)})
	}
	return out
}
