package rpc

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ipcd/ipcd/broker"
	"github.com/ipcd/ipcd/broker/queue"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

const (
	// resultsUndurable is how many results may wait for the disk: a sync takes up to a millisecond, in which
	// hundreds of small batches come, and those after it wait for the next one.
	resultsUndurable = 512
	// resultsReady is how many may then wait for the client to read them. When both are full the stream
	// is read no further, and HTTP/2 flow control holds the client back.
	resultsReady = 256
	// resultsPerFrame and duplicatesPerFrame bound a SendStreamResponse.
	resultsPerFrame    = 1024
	duplicatesPerFrame = 1 << 18
	// A result with more than manyDuplicates is large; only largeInFlight of those may wait.
	manyDuplicates = 256
	largeInFlight  = 4
)

// decision is the result of a batch, and what it waits for before it may be told.
type decision struct {
	result *ipcdv1.BatchResult
	ticket broker.Ticket
}

// SendStream stores batches. They take this way: receive reads and decodes them, the handler submits
// them to the broker one after the other, awaitResults waits until they are on disk, and writeResults
// answers all that are in one frame.
func (s messages) SendStream(stream grpc.BidiStreamingServer[ipcdv1.SendStreamRequest, ipcdv1.SendStreamResponse]) error {
	const method = ipcdv1.MessageService_SendStream_FullMethodName
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	done := make(chan struct{})
	defer close(done)
	frames := receive(s.Server, method, stream, done)

	request, err := first(s.Server, frames)
	if err != nil {
		return err
	}
	open, ok := request.Kind.(*ipcdv1.SendStreamRequest_Open)
	if !ok {
		return firstFrame(request.Kind)
	}
	callOf(ctx).on(open.Open.GetQueue())

	decided := make(chan decision, resultsUndurable)
	ready := make(chan *ipcdv1.BatchResult, resultsReady)
	large := make(chan struct{}, largeInFlight)
	// Should one of the two fail, nobody takes results any more.
	stage := func(work func() error) <-chan error {
		ended := make(chan error, 1)
		go func() {
			err := s.guard(method, work)
			if err != nil {
				cancel()
			}
			ended <- err
		}()
		return ended
	}
	awaited := stage(func() error { return s.awaitResults(ctx, decided, ready) })
	written := stage(func() error { return writeResults(stream, ready, large) })
	err = s.sendBatches(ctx, open.Open, frames, decided, large)
	close(decided)
	awaitErr, writeErr := <-awaited, <-written
	if stream.Context().Err() == nil {
		switch {
		case writeErr != nil:
			return writeErr
		case awaitErr != nil:
			return awaitErr
		}
	}
	return err
}

// sendBatches passes batches to the broker, in order. It returns when the client is done (nil), gone
// or wrong, and when the daemon stops; the batch at hand is finished first.
func (s messages) sendBatches(ctx context.Context, open *ipcdv1.SendStreamOpen, frames <-chan frame[ipcdv1.SendStreamRequest], decided chan<- decision, large chan<- struct{}) error {
	caller := callerFrom(ctx)
	var batch []queue.Message // reused: the queue copies what it takes
	for {
		var f frame[ipcdv1.SendStreamRequest]
		select {
		case f = <-frames:
		case <-ctx.Done():
			return ctx.Err()
		case <-s.closing.Done():
			return shuttingDown()
		}
		if errors.Is(f.err, io.EOF) {
			return nil
		}
		if f.err != nil {
			return f.err
		}
		kind, ok := f.request.Kind.(*ipcdv1.SendStreamRequest_Batch)
		if !ok {
			return unexpectedFrame(f.request.Kind, "batches")
		}
		var stored queue.Stored
		var ticket broker.Ticket
		var err error
		request := broker.SendRequest{Queue: open.Queue, Producer: open.ProducerId, Instance: open.Instance, Batch: kind.Batch.GetBatchId()}
		if request.Messages, err = decodeBatch(kind.Batch.GetMessages(), batch); err == nil {
			batch = request.Messages
			if request.Wait, err = decodeWait(kind.Batch.GetWait()); err == nil {
				stored, ticket, err = s.broker.Submit(ctx, caller, request)
			}
			clear(batch) // a silent stream keeps no frame alive
		}
		if len(stored.Duplicates) > manyDuplicates {
			select {
			case large <- struct{}{}:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		select {
		case decided <- decision{s.encodeResult(request.Batch, stored, err), ticket}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s messages) encodeResult(id uint64, stored queue.Stored, err error) *ipcdv1.BatchResult {
	if err != nil {
		failure := s.toError(ipcdv1.MessageService_SendStream_FullMethodName, err)
		return &ipcdv1.BatchResult{BatchId: id, Outcome: &ipcdv1.BatchResult_Error{Error: failure}}
	}
	r := new(struct { // in one allocation
		result  ipcdv1.BatchResult
		outcome ipcdv1.BatchResult_Stored
		stored  ipcdv1.Stored
		sent    timestamppb.Timestamp
	})
	setTime(&r.sent, stored.SentAt)
	r.stored.FirstSequence, r.stored.Count, r.stored.SendTime = stored.First, uint32(stored.Count), &r.sent
	r.stored.Duplicates = encodeDuplicates(stored.Duplicates)
	r.outcome.Stored = &r.stored
	r.result.BatchId, r.result.Outcome = id, &r.outcome
	return &r.result
}

// awaitResults passes results on once they are on disk, in order, until the channel is closed.
func (s messages) awaitResults(ctx context.Context, decided <-chan decision, ready chan<- *ipcdv1.BatchResult) error {
	defer close(ready)
	for d := range decided {
		if d.ticket != 0 {
			if err := s.broker.Await(ctx, d.ticket); err != nil {
				return err
			}
		}
		select {
		case ready <- d.result:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// writeResults sends results in order, all that are ready in one frame, until the channel is closed.
func writeResults(stream grpc.ServerStreamingServer[ipcdv1.SendStreamResponse], results <-chan *ipcdv1.BatchResult, large <-chan struct{}) error {
	var response ipcdv1.SendStreamResponse
	for result := range results {
		response.Results = append(response.Results[:0], result)
		duplicates := len(result.GetStored().GetDuplicates())
	ready:
		for len(response.Results) < resultsPerFrame && duplicates < duplicatesPerFrame {
			select {
			case result, ok := <-results:
				if !ok {
					break ready
				}
				response.Results = append(response.Results, result)
				duplicates += len(result.GetStored().GetDuplicates())
			default:
				break ready
			}
		}
		if err := stream.Send(&response); err != nil {
			return streamEnded{err}
		}
		for _, result := range response.Results {
			if len(result.GetStored().GetDuplicates()) > manyDuplicates {
				<-large
			}
		}
		clear(response.Results)
	}
	return nil
}
