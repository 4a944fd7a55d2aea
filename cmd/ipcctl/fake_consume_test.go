package main

import (
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// Consume hands out what is ready, as far as there is credit, and what becomes ready again.
func (f *fake) Consume(s grpc.BidiStreamingServer[ipcdv1.ConsumeRequest, ipcdv1.ConsumeResponse]) error {
	var q *fakeQueue
	var credit, tag uint64
	tags := map[uint64]*ipcdv1.PeekedMessage{}
	for {
		r, err := s.Recv()
		if err != nil {
			return nil
		}
		switch kind := r.Kind.(type) {
		case *ipcdv1.ConsumeRequest_Open:
			f.mu.Lock()
			q, err = f.enter(kind.Open.Queue, kind.Open)
			f.mu.Unlock()
			if err != nil {
				return err
			}
			err = s.Send(&ipcdv1.ConsumeResponse{Kind: &ipcdv1.ConsumeResponse_Opened{Opened: &ipcdv1.ConsumeOpened{Lease: durationpb.New(durationOf30s)}}})
		case *ipcdv1.ConsumeRequest_Credit:
			credit += kind.Credit.Messages
		case *ipcdv1.ConsumeRequest_Settlements:
			f.mu.Lock()
			for _, settlement := range kind.Settlements.Settlements {
				for t := settlement.GetTags().First; t <= settlement.GetTags().Last; t++ {
					q.settle(tags[t], settlement)
					delete(tags, t)
				}
			}
			f.requests = append(f.requests, kind.Settlements)
			f.mu.Unlock()
			err = s.Send(&ipcdv1.ConsumeResponse{Kind: &ipcdv1.ConsumeResponse_SettleResults{SettleResults: &ipcdv1.SettleResults{SettleId: kind.Settlements.SettleId}}})
		case *ipcdv1.ConsumeRequest_Drain:
			credit = 0
			err = s.Send(&ipcdv1.ConsumeResponse{Kind: &ipcdv1.ConsumeResponse_Drained{Drained: &ipcdv1.Drained{}}})
		}
		if err != nil {
			return err
		}
		f.mu.Lock()
		frame := &ipcdv1.Deliveries{FirstTag: tag + 1}
		for _, m := range q.messages {
			if credit == 0 || m.State != ipcdv1.MessageState_MESSAGE_STATE_READY {
				continue
			}
			m.State = ipcdv1.MessageState_MESSAGE_STATE_LEASED
			credit--
			tag++
			tags[tag] = m
			frame.Deliveries = append(frame.Deliveries, &ipcdv1.Delivery{
				Message: m.Message, Sequence: m.Sequence, SendTime: m.SendTime, Attempts: m.Attempts, Receipt: fmt.Sprintf("%d.1.%d.1.x", q.info.Id, m.Sequence),
			})
		}
		breaks := f.breakConsume
		f.mu.Unlock()
		if len(frame.Deliveries) > 0 {
			if err := s.Send(&ipcdv1.ConsumeResponse{Kind: &ipcdv1.ConsumeResponse_Deliveries{Deliveries: frame}}); err != nil {
				return err
			}
			if breaks != nil {
				<-breaks
				f.mu.Lock()
				f.breakConsume = nil
				for _, m := range tags {
					m.State = ipcdv1.MessageState_MESSAGE_STATE_READY
				}
				f.mu.Unlock()
				return status.Error(codes.Unavailable, "the connection broke")
			}
		}
	}
}

// settle lets a message of a stream go, or makes it ready again. A nacked one is not delivered again: it waits for its back-off.
func (q *fakeQueue) settle(m *ipcdv1.PeekedMessage, s *ipcdv1.Settlement) {
	switch {
	case s.GetAck() != nil:
		for i := range q.messages {
			if q.messages[i] == m {
				q.messages = append(q.messages[:i], q.messages[i+1:]...)
				return
			}
		}
	case s.GetNack() != nil:
		m.State, m.BuryReason = ipcdv1.MessageState_MESSAGE_STATE_DELAYED, s.GetNack().Reason
		m.Attempts++
	case s.GetRelease() != nil:
		m.State = ipcdv1.MessageState_MESSAGE_STATE_READY
	}
}
