package rpc

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/ipcd/ipcd/broker"
	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

func open(name string) *ipcdv1.SendStreamRequest {
	return &ipcdv1.SendStreamRequest{Kind: &ipcdv1.SendStreamRequest_Open{Open: &ipcdv1.SendStreamOpen{Queue: name, ProducerId: "p", Instance: "i"}}}
}

// batch is a batch of n empty messages.
func batch(id uint64, n int) *ipcdv1.SendStreamRequest {
	messages := make([]*ipcdv1.Message, n)
	for i := range messages {
		messages[i] = new(ipcdv1.Message)
	}
	return &ipcdv1.SendStreamRequest{Kind: &ipcdv1.SendStreamRequest_Batch{Batch: &ipcdv1.SendStreamBatch{BatchId: id, Messages: messages}}}
}

type sendClient = grpc.BidiStreamingClient[ipcdv1.SendStreamRequest, ipcdv1.SendStreamResponse]

func sendFrames(t *testing.T, stream sendClient, frames ...*ipcdv1.SendStreamRequest) {
	t.Helper()
	for _, f := range frames {
		if err := stream.Send(f); err != nil && err != io.EOF { // EOF: it has ended, and Recv says why
			t.Fatal(err)
		}
	}
}

// results reads n results.
func results(t *testing.T, stream sendClient, n int) []*ipcdv1.BatchResult {
	t.Helper()
	var all []*ipcdv1.BatchResult
	for len(all) < n {
		r, err := stream.Recv()
		if err != nil {
			t.Fatalf("after %d results: %v", len(all), err)
		}
		all = append(all, r.Results...)
	}
	return all
}

func TestSendStreamAnswersEveryBatchInOrder(t *testing.T) {
	next := uint64(1)
	h := serve(t, &fakeBroker{send: func(_ context.Context, r broker.SendRequest) (queue.Stored, error) {
		if r.Queue != "/q" || r.Producer != "p" || r.Instance != "i" || r.Wait >= 0 {
			t.Errorf("request %+v", r)
		}
		stored := queue.Stored{First: next, Count: len(r.Messages), SentAt: 1_500_000_000, Duplicates: []queue.Duplicate{{Index: 1, Sequence: 5}}}
		next += uint64(len(r.Messages))
		return stored, nil
	}})
	stream, err := h.messages.SendStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const n = 2000
	go func() {
		sendFrames(t, stream, open("/q"))
		for id := range uint64(n) {
			sendFrames(t, stream, batch(id+100, 3))
		}
		stream.CloseSend()
	}()
	for i, r := range results(t, stream, n) {
		s := r.GetStored()
		if r.BatchId != uint64(i)+100 || s.GetFirstSequence() != uint64(i)*3+1 || s.GetCount() != 3 || s.GetSendTime().GetNanos() != 500_000_000 || s.GetDuplicates()[0].Sequence != 5 {
			t.Fatalf("result %d is %v", i, r)
		}
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("the end: %v, want EOF", err)
	}
}

func TestSendStreamGoesOnAfterAFailedBatch_S6(t *testing.T) {
	calls := 0
	h := serve(t, &fakeBroker{send: func(context.Context, broker.SendRequest) (queue.Stored, error) {
		if calls++; calls == 1 {
			return queue.Stored{}, reason.New(reason.QueueFull, "full").Retry(100).At(1)
		}
		return queue.Stored{First: 7, Count: 1}, nil
	}})
	stream, err := h.messages.SendStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	bad := batch(2, 3)
	bad.GetBatch().Messages[2].Priority = limits.PriorityMax + 1
	sendFrames(t, stream, open("/q"), batch(1, 2), bad, batch(3, 0), batch(4, 1))
	got := results(t, stream, 4)
	if e := got[0].GetError(); e.GetReason() != "QUEUE_FULL" || e.GetIndex() != 1 || e.GetRetryAfter().AsDuration() != 100 || e.GetCode() != 8 {
		t.Errorf("result 1: %v", got[0])
	}
	if e := got[1].GetError(); e.GetReason() != "INVALID_ARGUMENT" || e.Index == nil || e.GetIndex() != 2 {
		t.Errorf("result 2: %v", got[1])
	}
	if e := got[2].GetError(); e.GetReason() != "INVALID_ARGUMENT" || e.Index != nil {
		t.Errorf("result 3: %v", got[2])
	}
	if got[3].GetStored().GetFirstSequence() != 7 {
		t.Errorf("result 4: %v", got[3])
	}
	stream.CloseSend()
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("the end: %v, want EOF", err)
	}
}

func TestSendStreamRefusesFramesOutOfPlace(t *testing.T) {
	stored := func(context.Context, broker.SendRequest) (queue.Stored, error) { return queue.Stored{Count: 1}, nil }
	for name, test := range map[string]struct {
		frames []*ipcdv1.SendStreamRequest
		want   string
	}{
		"batch first":  {[]*ipcdv1.SendStreamRequest{batch(1, 1)}, "must be `open`, not `batch`"},
		"empty first":  {[]*ipcdv1.SendStreamRequest{{}}, "first frame is empty"},
		"nothing":      {nil, "ended before it began"},
		"second open":  {[]*ipcdv1.SendStreamRequest{open("/q"), open("/q")}, "a second `open`"},
		"empty second": {[]*ipcdv1.SendStreamRequest{open("/q"), {}}, "an empty frame"},
	} {
		t.Run(name, func(t *testing.T) {
			h := serve(t, &fakeBroker{send: stored})
			stream, err := h.messages.SendStream(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			sendFrames(t, stream, test.frames...)
			stream.CloseSend()
			_, err = stream.Recv()
			if s := wantReason(t, err, reason.InvalidArgument); !strings.Contains(s.Message(), test.want) {
				t.Errorf("message %q, want %q in it", s.Message(), test.want)
			}
		})
	}
}

func TestSendStreamOfAVanishedClientEnds(t *testing.T) {
	sending, ended := make(chan struct{}), make(chan error, 1)
	h := serve(t, &fakeBroker{send: func(ctx context.Context, _ broker.SendRequest) (queue.Stored, error) {
		close(sending)
		<-ctx.Done()
		ended <- ctx.Err()
		return queue.Stored{}, ctx.Err()
	}})
	stream, err := h.messages.SendStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	sendFrames(t, stream, open("/q"), batch(1, 1), batch(2, 1))
	<-sending
	h.unix.Close() // the connection breaks while the broker works; goleak watches the rest
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the broker's context ended with %v", err)
	}
}

// pipe is a server's stream whose other end never reads: Send waits for the stream's end.
type pipe struct {
	grpc.ServerStream
	ctx      context.Context
	received atomic.Int64
}

func (p *pipe) Context() context.Context { return p.ctx }

func (p *pipe) Recv() (*ipcdv1.SendStreamRequest, error) {
	if p.ctx.Err() != nil {
		return nil, p.ctx.Err()
	}
	if p.received.Add(1) == 1 {
		return open("/q"), nil
	}
	return batch(1, 1), nil
}

func (p *pipe) Send(*ipcdv1.SendStreamResponse) error {
	<-p.ctx.Done()
	return p.ctx.Err()
}

func TestSendStreamHoldsBackAClientThatNeverReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := New(Options{Logger: zap.NewNop(), Broker: &fakeBroker{send: func(context.Context, broker.SendRequest) (queue.Stored, error) {
			return queue.Stored{Count: 1}, nil
		}}})
		stream, ended := &pipe{ctx: ctx}, make(chan error)
		go func() { ended <- messages{Server: s}.SendStream(stream) }()
		synctest.Wait() // until everybody waits for the client
		// On the way: a frame of results being written, those waiting for it and for the disk, one awaited, one answered, one decoded, the open.
		const waiting = resultsUndurable + resultsReady
		if n := stream.received.Load(); n < waiting || n > waiting+resultsPerFrame+5 {
			t.Errorf("%d frames were read of a client that reads no answers, want %d and a frame's %d at most", n, waiting, resultsPerFrame)
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
		s.readers.Wait()
	})
}

// Duplicates are many times the size of other results: a few such answers fill what may wait.
func TestSendStreamHoldsBackManyDuplicatesSooner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var sent atomic.Int64
		s := New(Options{Logger: zap.NewNop(), Broker: &fakeBroker{send: func(context.Context, broker.SendRequest) (queue.Stored, error) {
			sent.Add(1)
			return queue.Stored{Count: manyDuplicates + 1, Duplicates: make([]queue.Duplicate, manyDuplicates+1)}, nil
		}}})
		stream, ended := &pipe{ctx: ctx}, make(chan error)
		go func() { ended <- messages{Server: s}.SendStream(stream) }()
		synctest.Wait()
		if n := sent.Load(); n != largeInFlight+1 { // those that wait, and the one that waits to wait
			t.Errorf("%d large answers were made for a client that reads none, want %d", n, largeInFlight+1)
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
		s.readers.Wait()
	})
}

func TestSendStreamAnswersAnyNumberOfDuplicates(t *testing.T) {
	const batches = 5 * largeInFlight
	h := serve(t, &fakeBroker{send: func(context.Context, broker.SendRequest) (queue.Stored, error) {
		return queue.Stored{Count: manyDuplicates + 1, Duplicates: make([]queue.Duplicate, manyDuplicates+1)}, nil
	}})
	stream, err := h.messages.SendStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	sendFrames(t, stream, open("/q"))
	for i := range uint64(batches) {
		sendFrames(t, stream, batch(i+1, 1))
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	results := 0
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, result := range r.Results {
			if results++; len(result.GetStored().GetDuplicates()) != manyDuplicates+1 {
				t.Errorf("result %d has %d duplicates", results, len(result.GetStored().GetDuplicates()))
			}
		}
	}
	if results != batches {
		t.Errorf("%d results, want %d", results, batches)
	}
}

// A batch's bodies are the broker's while it works, and nobody's afterwards.
func TestSilentSendStreamKeepsNoBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var kept []queue.Message
		s := New(Options{Logger: zap.NewNop(), Broker: &fakeBroker{send: func(_ context.Context, r broker.SendRequest) (queue.Stored, error) {
			kept = r.Messages
			return queue.Stored{Count: 1}, nil
		}}})
		frames := make(chan frame[ipcdv1.SendStreamRequest], 1)
		frames <- frame[ipcdv1.SendStreamRequest]{request: &ipcdv1.SendStreamRequest{Kind: &ipcdv1.SendStreamRequest_Batch{
			Batch: &ipcdv1.SendStreamBatch{Messages: []*ipcdv1.Message{{Body: []byte("large")}}}}}}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() {
			ended <- messages{Server: s}.sendBatches(ctx, &ipcdv1.SendStreamOpen{Queue: "/q"}, frames, make(chan decision, 1), nil)
		}()
		synctest.Wait() // it waits for another frame
		if len(kept) != 1 || kept[0].Body != nil {
			t.Errorf("%+v is kept alive", kept)
		}
		cancel()
		<-ended
	})
}

// recorder is a server's stream that keeps what is sent.
type recorder struct {
	grpc.ServerStream
	frames []int // results in each frame
}

func (r *recorder) Send(m *ipcdv1.SendStreamResponse) error {
	r.frames = append(r.frames, len(m.Results))
	return nil
}

func TestResultsThatAreReadyGoInOneFrame(t *testing.T) {
	ready := make(chan *ipcdv1.BatchResult, 3*resultsPerFrame)
	for range 2*resultsPerFrame + 7 {
		ready <- new(ipcdv1.BatchResult)
	}
	close(ready)
	var r recorder
	if err := writeResults(&r, ready, nil); err != nil {
		t.Fatal(err)
	}
	if len(r.frames) != 3 || r.frames[0] != resultsPerFrame || r.frames[1] != resultsPerFrame || r.frames[2] != 7 {
		t.Errorf("frames of %v results", r.frames)
	}
}
