package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sentAt is when every message of the fake was sent.
var sentAt = time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)

// leaseEnds is when every lease of the fake ends.
var leaseEnds = time.Date(2126, 1, 2, 3, 4, 5, 0, time.UTC)

// fake is a daemon small enough to be seen through: it keeps messages in lists, remembers requests,
// and fails as it is told.
type fake struct {
	ipcdv1.UnimplementedQueueAdminServiceServer
	ipcdv1.UnimplementedMessageServiceServer
	ipcdv1.UnimplementedRingServiceServer
	ipcdv1.UnimplementedSystemServiceServer

	address string

	mu       sync.Mutex
	queues   map[string]*fakeQueue
	rings    map[string]*fakeRing
	requests []proto.Message
	failWith map[string]error // by the name of a queue
	archive  []byte           // what Backup hands out; nil: the caller may not
	info     *ipcdv1.GetInfoResponse
	failInfo error
	imports  func(*ipcdv1.ImportMessagesRequest) // sees each before it is stored; may be nil
	health   *health.Server
	reload   func() (*ipcdv1.ReloadResponse, error)
	clients  []*ipcdv1.ClientConnection
	quotas   []*ipcdv1.ListQuotasResponse

	breakConsume chan struct{} // the stream of Consume breaks once messages are delivered and it is closed; nil: it does not
}

type fakeQueue struct {
	info     *ipcdv1.Queue
	messages []*ipcdv1.PeekedMessage
	schema   *ipcdv1.Schema
}

// startFake serves a fake on a unix socket of its own.
func startFake(t *testing.T) *fake {
	t.Helper()
	f := &fake{queues: map[string]*fakeQueue{}, rings: map[string]*fakeRing{}, failWith: map[string]error{}, info: someInfo(), health: health.NewServer()}
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	f.address = "unix://" + path
	s := grpc.NewServer()
	ipcdv1.RegisterQueueAdminServiceServer(s, f)
	ipcdv1.RegisterMessageServiceServer(s, f)
	ipcdv1.RegisterRingServiceServer(s, f)
	ipcdv1.RegisterSystemServiceServer(s, f)
	ipcdv1.RegisterSchemaServiceServer(s, fakeSchemas{f: f})
	grpc_health_v1.RegisterHealthServer(s, f.health)
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { s.Stop(); <-done })
	return f
}

func refuse(r reason.Reason, format string, args ...any) error {
	s, err := status.New(r.Lookup().Code, fmt.Sprintf(format, args...)).
		WithDetails(&errdetails.ErrorInfo{Reason: string(r), Domain: reason.Domain})
	if err != nil {
		panic(err)
	}
	return s.Err()
}

// add makes a queue with bodies of type 1.
func (f *fake) add(name string, bodies ...string) *fakeQueue {
	f.mu.Lock()
	defer f.mu.Unlock()
	q := &fakeQueue{info: &ipcdv1.Queue{
		Name: name, Id: uint64(len(f.queues) + 1), CreateTime: timestamppb.New(sentAt), Stats: &ipcdv1.QueueStats{},
		Settings: &ipcdv1.QueueSettings{
			MaxMessages: proto.Uint64(1000), MaxBytes: proto.Uint64(1 << 30), MaxMessageSize: proto.Uint64(64), Lease: durationpb.New(30 * time.Second),
			MaxAttempts: proto.Uint32(16), DeadLetterQueue: proto.String(""), DeadLetterExpired: proto.Bool(false),
			Overflow: ipcdv1.OverflowPolicy_OVERFLOW_POLICY_REJECT, Durability: ipcdv1.Durability_DURABILITY_MEMORY,
			Backoff:     &ipcdv1.Backoff{Initial: durationpb.New(0), Max: durationpb.New(0)},
			DedupWindow: durationpb.New(2 * time.Minute), MaxDedupIds: proto.Uint64(1000000), TypeNames: map[string]int64{"created": 7, "failed": 8},
			Mqueue: &ipcdv1.KernelQueue{Mode: ipcdv1.KernelQueueMode_KERNEL_QUEUE_MODE_AUTO, Type: 1},
			Mode:   proto.Uint32(0o600), OwnerUid: proto.Uint32(4000000001), GroupGid: proto.Uint32(4000000002),
		},
	}}
	for _, b := range bodies {
		q.put(&ipcdv1.Message{Type: 1, Body: []byte(b)})
	}
	f.queues[name] = q
	return q
}

func (q *fakeQueue) put(m *ipcdv1.Message) uint64 {
	q.info.Stats.SentTotal++
	sequence := q.info.Stats.SentTotal
	q.messages = append(q.messages, &ipcdv1.PeekedMessage{
		Message: m, Sequence: sequence, SendTime: timestamppb.New(sentAt), State: ipcdv1.MessageState_MESSAGE_STATE_READY,
	})
	return sequence
}

// states lists sequences and states of what is left in a queue, as in "1 ready, 2 leased".
func (f *fake) states(name string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []string
	for _, m := range f.queues[name].messages {
		all = append(all, fmt.Sprintf("%d %s", m.Sequence, strings.ToLower(strings.TrimPrefix(m.State.String(), "MESSAGE_STATE_"))))
	}
	return strings.Join(all, ", ")
}

// seen returns the last request of a type.
func seen[T proto.Message](t *testing.T, f *fake) T {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range slices.Backward(f.requests) {
		if found, is := r.(T); is {
			return found
		}
	}
	var none T
	t.Fatalf("no %T was sent", none)
	return none
}

// enter notes a request and finds its queue. The caller holds the lock.
func (f *fake) enter(name string, request proto.Message) (*fakeQueue, error) {
	f.requests = append(f.requests, request)
	if err := f.failWith[name]; err != nil {
		return nil, err
	}
	q := f.queues[name]
	if q == nil {
		return nil, refuse(reason.QueueNotFound, "there is no queue of this name; create it first")
	}
	return q, nil
}

// now returns the queue with its counts.
func (q *fakeQueue) now() *ipcdv1.Queue {
	info := proto.CloneOf(q.info)
	for _, m := range q.messages {
		switch m.State {
		case ipcdv1.MessageState_MESSAGE_STATE_READY:
			info.Stats.Ready++
		case ipcdv1.MessageState_MESSAGE_STATE_LEASED:
			info.Stats.Leased++
		case ipcdv1.MessageState_MESSAGE_STATE_BURIED:
			info.Stats.Buried++
		}
		info.Stats.Bytes += uint64(len(m.Message.Body))
	}
	return info
}

func (f *fake) CreateQueue(_ context.Context, r *ipcdv1.CreateQueueRequest) (*ipcdv1.CreateQueueResponse, error) {
	f.mu.Lock()
	q, err := f.enter(r.Name, r)
	f.mu.Unlock()
	if q != nil {
		return &ipcdv1.CreateQueueResponse{Queue: q.now()}, nil
	}
	if f.failWith[r.Name] != nil {
		return nil, err
	}
	return &ipcdv1.CreateQueueResponse{Queue: f.add(r.Name).now(), Created: true}, nil
}

func (f *fake) GetQueue(_ context.Context, r *ipcdv1.GetQueueRequest) (*ipcdv1.GetQueueResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	q, err := f.enter(r.Name, r)
	if err != nil {
		return nil, err
	}
	return &ipcdv1.GetQueueResponse{Queue: q.now()}, nil
}

func (f *fake) UpdateQueue(_ context.Context, r *ipcdv1.UpdateQueueRequest) (*ipcdv1.UpdateQueueResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	q, err := f.enter(r.Name, r)
	if err != nil {
		return nil, err
	}
	return &ipcdv1.UpdateQueueResponse{Queue: q.now()}, nil
}

func (f *fake) DeleteQueue(_ context.Context, r *ipcdv1.DeleteQueueRequest) (*ipcdv1.DeleteQueueResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	q, err := f.enter(r.Name, r)
	if err != nil {
		return nil, err
	}
	delete(f.queues, r.Name)
	return &ipcdv1.DeleteQueueResponse{Messages: uint64(len(q.messages))}, nil
}

func (f *fake) PauseQueue(_ context.Context, r *ipcdv1.PauseQueueRequest) (*ipcdv1.PauseQueueResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	q, err := f.enter(r.Name, r)
	if err != nil {
		return nil, err
	}
	q.info.Paused = true
	return &ipcdv1.PauseQueueResponse{Queue: q.now()}, nil
}

func (f *fake) ListQueues(r *ipcdv1.ListQueuesRequest, s grpc.ServerStreamingServer[ipcdv1.ListQueuesResponse]) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests = append(f.requests, r)
	var names []string
	for name := range f.queues {
		if match, _ := path.Match(r.Glob, strings.TrimPrefix(name, "/")); match || r.Glob == "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		if err := s.Send(&ipcdv1.ListQueuesResponse{Queue: f.queues[name].now()}); err != nil {
			return err
		}
	}
	return nil
}

func (f *fake) PurgeQueue(_ context.Context, r *ipcdv1.PurgeQueueRequest) (*ipcdv1.PurgeQueueResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	q, err := f.enter(r.Name, r)
	if err != nil {
		return nil, err
	}
	n := uint64(len(q.messages))
	if !r.DryRun {
		q.messages = nil
	}
	return &ipcdv1.PurgeQueueResponse{Messages: n}, nil
}

func (f *fake) KickMessages(_ context.Context, r *ipcdv1.KickMessagesRequest) (*ipcdv1.KickMessagesResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	q, err := f.enter(r.Name, r)
	if err != nil {
		return nil, err
	}
	n := uint64(0)
	for _, m := range q.messages {
		if m.State == ipcdv1.MessageState_MESSAGE_STATE_BURIED {
			m.State = ipcdv1.MessageState_MESSAGE_STATE_READY
			n++
		}
	}
	return &ipcdv1.KickMessagesResponse{Messages: n}, nil
}

func (f *fake) store(q *fakeQueue, messages []*ipcdv1.Message) (*ipcdv1.Stored, *ipcdv1.Error) {
	for i, m := range messages {
		if strings.HasPrefix(string(m.Body), "refuse") {
			return nil, &ipcdv1.Error{Code: 8, Reason: string(reason.QueueFull), Message: "the queue is full", Index: proto.Uint32(uint32(i))}
		}
	}
	stored := &ipcdv1.Stored{Count: uint32(len(messages)), SendTime: timestamppb.New(sentAt)}
	for i, m := range messages {
		if m.DedupId == "seen" {
			stored.Duplicates = append(stored.Duplicates, &ipcdv1.Duplicate{Index: uint32(i), Sequence: 1})
			continue
		}
		sequence := q.put(m)
		if stored.FirstSequence == 0 {
			stored.FirstSequence = sequence
		}
	}
	return stored, nil
}

func (f *fake) Send(_ context.Context, r *ipcdv1.SendRequest) (*ipcdv1.SendResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	q, err := f.enter(r.Queue, r)
	if err != nil {
		return nil, err
	}
	stored, failed := f.store(q, r.Messages)
	if failed != nil {
		return nil, refuse(reason.Reason(failed.Reason), "%s", failed.Message)
	}
	return &ipcdv1.SendResponse{Stored: stored}, nil
}

func (f *fake) SendStream(s grpc.BidiStreamingServer[ipcdv1.SendStreamRequest, ipcdv1.SendStreamResponse]) error {
	var q *fakeQueue
	for {
		r, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		f.mu.Lock()
		if open := r.GetOpen(); open != nil {
			q, err = f.enter(open.Queue, open)
			f.mu.Unlock()
			if err != nil {
				return err
			}
			continue
		}
		result := &ipcdv1.BatchResult{BatchId: r.GetBatch().BatchId}
		stored, failed := f.store(q, r.GetBatch().Messages)
		f.mu.Unlock()
		if failed != nil {
			result.Outcome = &ipcdv1.BatchResult_Error{Error: failed}
		} else {
			result.Outcome = &ipcdv1.BatchResult_Stored{Stored: stored}
		}
		if err := s.Send(&ipcdv1.SendStreamResponse{Results: []*ipcdv1.BatchResult{result}}); err != nil {
			return err
		}
	}
}

func (f *fake) Receive(_ context.Context, r *ipcdv1.ReceiveRequest) (*ipcdv1.ReceiveResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	response := new(ipcdv1.ReceiveResponse)
	for _, name := range r.Queues { // all that is ready, of one after the other
		one := proto.CloneOf(r)
		one.Queue, one.Queues = name, nil
		if err := f.receive(one, response); err != nil {
			return nil, err
		}
	}
	if r.Queue == "" {
		return response, nil
	}
	return response, f.receive(r, response)
}

func (f *fake) receive(r *ipcdv1.ReceiveRequest, response *ipcdv1.ReceiveResponse) error {
	q, err := f.enter(r.Queue, r)
	if err != nil {
		return err
	}
	for _, m := range q.messages {
		if m.State != ipcdv1.MessageState_MESSAGE_STATE_READY || len(response.Deliveries) == int(max(1, r.MaxMessages)) {
			continue
		}
		m.State = ipcdv1.MessageState_MESSAGE_STATE_LEASED
		response.Deliveries = append(response.Deliveries, &ipcdv1.Delivery{
			Message: m.Message, Queue: r.Queue, Sequence: m.Sequence, SendTime: m.SendTime, Attempts: m.Attempts,
			LeaseExpireTime: timestamppb.New(leaseEnds), Receipt: fmt.Sprintf("%d.1.%d.1.x", q.info.Id, m.Sequence),
		})
	}
	return nil
}

func (f *fake) Settle(_ context.Context, r *ipcdv1.SettleRequest) (*ipcdv1.SettleResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests = append(f.requests, r)
	response := new(ipcdv1.SettleResponse)
	for i, s := range r.Settlements {
		if !f.settle(s) {
			response.Failures = append(response.Failures, &ipcdv1.SettleFailure{Index: uint32(i), Error: &ipcdv1.Error{
				Code: 9, Reason: string(reason.StaleReceipt), Message: "the delivery is over"}})
		} else if s.GetTouch() != nil {
			response.Touched = append(response.Touched, &ipcdv1.TouchedLease{Index: uint32(i), LeaseExpireTime: timestamppb.New(leaseEnds)})
		}
	}
	return response, nil
}

func (f *fake) settle(s *ipcdv1.Settlement) bool {
	for _, q := range f.queues {
		for i, m := range q.messages {
			if m.State != ipcdv1.MessageState_MESSAGE_STATE_LEASED || fmt.Sprintf("%d.1.%d.1.x", q.info.Id, m.Sequence) != s.GetReceipt() {
				continue
			}
			switch {
			case s.GetAck() != nil:
				q.messages = slices.Delete(q.messages, i, i+1)
			case s.GetBury() != nil:
				m.State, m.BuryReason = ipcdv1.MessageState_MESSAGE_STATE_BURIED, s.GetBury().Reason
			case s.GetTouch() == nil:
				m.State = ipcdv1.MessageState_MESSAGE_STATE_READY
			}
			return true
		}
	}
	return false
}

func (f *fake) Peek(r *ipcdv1.PeekRequest, s grpc.ServerStreamingServer[ipcdv1.PeekResponse]) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	q, err := f.enter(r.Queue, r)
	if err != nil {
		return err
	}
	page := new(ipcdv1.PeekResponse)
	for _, m := range q.messages {
		if r.Limit > 0 && len(page.Messages) == int(r.Limit) {
			break
		}
		if m.Sequence < r.Filter.GetMinSequence() {
			continue
		}
		m = proto.CloneOf(m)
		if n := int(r.MaxBodyBytes); n > 0 && len(m.Message.Body) > n {
			m.TruncatedFrom, m.Message.Body = uint64(len(m.Message.Body)), m.Message.Body[:n]
		}
		page.Messages = append(page.Messages, m)
	}
	if err := s.Send(page); err != nil || !r.Follow {
		return err
	}
	f.mu.Unlock()
	<-s.Context().Done() // nothing more arrives
	f.mu.Lock()
	return nil
}

func (f *fake) Backup(_ *ipcdv1.BackupRequest, s grpc.ServerStreamingServer[ipcdv1.BackupResponse]) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.archive == nil {
		return refuse(reason.AccessDenied, "only admins may back up the journal")
	}
	half := len(f.archive) / 2
	if err := s.Send(&ipcdv1.BackupResponse{Data: f.archive[:half], DoneBytes: 1024, TotalBytes: 2048}); err != nil {
		return err
	}
	return s.Send(&ipcdv1.BackupResponse{Data: f.archive[half:], DoneBytes: 2048, TotalBytes: 2048})
}

// result is what a command left behind.
type result struct {
	out, err string
	exit     int
}

// ctl runs ipcctl against the fake, away from any terminal, with input on stdin.
func (f *fake) ctl(t *testing.T, input string, args ...string) result {
	t.Helper()
	var out, errOut bytes.Buffer
	exit := f.run(t.Context(), streams{in: strings.NewReader(input), out: &out, err: &errOut}, args...)
	return result{out.String(), errOut.String(), exit}
}

func (f *fake) run(ctx context.Context, s streams, args ...string) int {
	if s.size == nil {
		s.size = func() (int, int) { return 0, 0 }
	}
	return run(ctx, append([]string{"--address", f.address}, args...), s)
}

func (r result) want(t *testing.T, exit int, out, err string) {
	t.Helper()
	if r.exit != exit {
		t.Errorf("exit %d, want %d", r.exit, exit)
	}
	if r.out != out {
		t.Errorf("stdout:\n%s\nwant:\n%s", r.out, out)
	}
	if r.err != err {
		t.Errorf("stderr:\n%s\nwant:\n%s", r.err, err)
	}
}

func durationOf(d time.Duration) *durationpb.Duration { return durationpb.New(d) }

// protoJSON writes a message without the spaces that protojson varies on purpose.
func protoJSON(t *testing.T, m proto.Message) string {
	t.Helper()
	text, err := protojson.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := json.Compact(&b, text); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
