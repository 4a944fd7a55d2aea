package client

import (
	"context"
	"fmt"
	"net"
	"os"
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
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// TestMain runs a daemon for the examples at the address that Dial("") finds, and looks for goroutines
// that the tests left behind.
func TestMain(m *testing.M) {
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	f, remove, err := newFake("examples")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer remove()
	if err := os.Setenv("IPCD_ADDRESS", "unix://"+f.path); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	f.stop()
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// fake is a daemon for tests: it keeps the protocol's promises as simply as can be, and breaks
// connections at the moments that a test chooses.
type fake struct {
	ipcdv1.UnimplementedSystemServiceServer
	ipcdv1.UnimplementedQueueAdminServiceServer
	ipcdv1.UnimplementedMessageServiceServer
	ipcdv1.UnimplementedRingServiceServer

	path string

	mu        sync.Mutex // guards all below
	server    *grpc.Server
	health    *health.Server
	conns     map[net.Conn]bool
	instance  string
	changed   chan struct{} // closed, and made anew, at every change
	queues    map[string]*fakeQueue
	rings     map[string]*fakeRing
	answers   map[string]*ipcdv1.Stored   // by producer and batch
	done      map[string][]*ipcdv1.Stored // transactions, alike
	batches   int                         // that came, refused and repeated ones and transactions included
	batchMost int                         // messages of a batch; 0: any number
	archive   []byte                      // what Backup hands out
	storage   *ipcdv1.Storage
	mistake   *reason.Error // in the configuration
	limits    map[string]int64
	hooks     hooks
	seen      []string // what came, for tests to look at

	temporaries int // made so far
	imported    []*ipcdv1.PeekedMessage
}

// hooks are called at nasty moments, without the lock; n counts from 1.
type hooks struct {
	beforeStore func(n int) error // n-th batch came
	afterStore  func(n int)       // n-th batch is stored and not yet answered
	received    func()            // messages are taken and not yet handed over
	settled     func()            // a frame of settlements is done and not yet confirmed
	getInfo     func()
	publish     func(n int) error // n-th request to publish came
	temporary   func(n int) error // n-th temporary queue is asked for
}

type fakeQueue struct {
	p        *ipcdv1.Queue
	next     uint64
	messages []*fakeMessage
}

type fakeMessage struct {
	m        *ipcdv1.Message
	sequence uint64
	attempts uint32
	delivery int
	leased   bool
	buried   string
}

func (m *fakeMessage) receipt() string { return fmt.Sprintf("1.1.%d.%d.x", m.sequence, m.delivery) }

// startFake starts a daemon with the queue /jobs on a socket of its own.
func startFake(t testing.TB) *fake {
	f, remove, err := newFake("first")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		f.stop()
		remove()
	})
	return f
}

func newFake(instance string) (f *fake, remove func(), err error) {
	dir, err := os.MkdirTemp("", "ipcd") // short enough for a socket's path
	if err != nil {
		return nil, nil, err
	}
	f = &fake{path: filepath.Join(dir, "s"), changed: make(chan struct{}), queues: map[string]*fakeQueue{}, rings: map[string]*fakeRing{}}
	f.addQueue("/jobs", 1000)
	return f, func() { _ = os.RemoveAll(dir) }, f.start(instance)
}

func (f *fake) addQueue(name string, max uint64) {
	f.queues[name] = &fakeQueue{p: &ipcdv1.Queue{Name: name, Settings: &ipcdv1.QueueSettings{MaxMessages: &max}}}
}

// start begins a new run of the daemon, which knows nothing of earlier runs' batches.
func (f *fake) start(instance string) error {
	listener, err := net.Listen("unix", f.path)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.instance, f.answers, f.conns = instance, map[string]*ipcdv1.Stored{}, map[net.Conn]bool{}
	f.done = map[string][]*ipcdv1.Stored{}
	server := grpc.NewServer(grpc.WaitForHandlers(true))
	ipcdv1.RegisterSystemServiceServer(server, f)
	ipcdv1.RegisterQueueAdminServiceServer(server, f)
	ipcdv1.RegisterMessageServiceServer(server, f)
	ipcdv1.RegisterRingServiceServer(server, f)
	f.health = health.NewServer()
	grpc_health_v1.RegisterHealthServer(server, f.health)
	f.server = server
	go func() { _ = server.Serve(&trackingListener{listener, f}) }()
	return nil
}

func (f *fake) stop() {
	f.mu.Lock()
	server := f.server
	f.mu.Unlock()
	server.Stop()
}

// cut breaks all connections.
func (f *fake) cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.conns {
		_ = c.Close()
		delete(f.conns, c)
	}
}

type trackingListener struct {
	net.Listener
	f *fake
}

func (l *trackingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.f.mu.Lock()
		l.f.conns[c] = true
		l.f.mu.Unlock()
	}
	return c, err
}

func (f *fake) dial(t testing.TB) *Client {
	c, err := Dial("unix://" + f.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func (f *fake) setHooks(h hooks) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hooks = h
}

func (f *fake) hook() hooks {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.hooks
}

func (f *fake) changedLocked() {
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *fake) note(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seen = append(f.seen, fmt.Sprintf(format, args...))
	f.changedLocked()
}

// await waits until what happened at the daemon satisfies ok, which is called with the lock held.
func (f *fake) await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		f.mu.Lock()
		done, changed := ok(), f.changed
		f.mu.Unlock()
		if done {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("in vain waited for: %s", what)
		}
	}
}

func (f *fake) sawLocked(prefix string) int {
	n := 0
	for _, s := range f.seen {
		if strings.HasPrefix(s, prefix) {
			n++
		}
	}
	return n
}

// bodies returns what the queue holds, in order.
func (f *fake) bodies(queue string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []string
	for _, m := range f.queues[queue].messages {
		all = append(all, string(m.m.GetBody()))
	}
	return all
}

// statusOf is an error as the daemon's doors send it.
func statusOf(e *reason.Error) error {
	info := &errdetails.ErrorInfo{Reason: string(e.Reason), Domain: reason.Domain, Metadata: map[string]string{"queue": e.Queue}}
	if e.Index != reason.Whole {
		info.Metadata["index"] = fmt.Sprint(e.Index)
	}
	s, err := status.New(e.Reason.Lookup().Code, e.Message).WithDetails(info)
	if err != nil {
		panic(err)
	}
	return s.Err()
}

func errorProto(e *reason.Error) *ipcdv1.Error {
	p := &ipcdv1.Error{Code: int32(e.Reason.Lookup().Code), Reason: string(e.Reason), Message: e.Message}
	if e.Index != reason.Whole {
		p.Index = new(uint32(e.Index))
	}
	return p
}

func (f *fake) GetInfo(context.Context, *ipcdv1.GetInfoRequest) (*ipcdv1.GetInfoResponse, error) {
	if h := f.hook().getInfo; h != nil {
		h()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return &ipcdv1.GetInfoResponse{Version: "1.0", Instance: f.instance, Pid: 42, Storage: f.storage, AttachSocket: "/run/attach.sock",
		Caller: &ipcdv1.Caller{Kind: "unix", Uid: new(uint32(7)), Gid: new(uint32(8)), Groups: []uint32{9}, Pid: 10, Admin: true}, Rings: 2, RingMemoryBytes: 4096}, nil
}

// store stores a batch, or says why not.
func (f *fake) store(queue, producer string, batch uint64, instance string, messages []*ipcdv1.Message) (*ipcdv1.Stored, *reason.Error) {
	f.mu.Lock()
	f.batches++
	n, h := f.batches, f.hooks
	f.mu.Unlock()
	if h.beforeStore != nil {
		if err := h.beforeStore(n); err != nil {
			return nil, err.(*reason.Error)
		}
	}
	stored, e := f.storeOnce(queue, producer, batch, instance, messages)
	if h.afterStore != nil {
		h.afterStore(n)
	}
	return stored, e
}

func (f *fake) storeOnce(queue, producer string, batch uint64, instance string, messages []*ipcdv1.Message) (*ipcdv1.Stored, *reason.Error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seen = append(f.seen, fmt.Sprintf("batch %s %d of %d", producer, batch, len(messages)))
	defer f.changedLocked()
	if instance != f.instance {
		return nil, reason.New(reason.OutcomeUnknown, "another instance")
	}
	q := f.queues[queue]
	if q == nil {
		return nil, reason.New(reason.QueueNotFound, "no queue %s", queue).On(queue)
	}
	key := fmt.Sprintf("%s %d", producer, batch)
	if stored := f.answers[key]; stored != nil {
		return stored, nil
	}
	for i, m := range messages {
		if len(m.GetBody()) > 100 {
			return nil, reason.New(reason.MessageTooLarge, "too large").At(i)
		}
	}
	if f.batchMost > 0 && len(messages) > f.batchMost {
		return nil, reason.New(reason.MessageTooLarge, "too many together")
	}
	if most := q.p.GetSettings().MaxMessages; most != nil && len(q.messages)+len(messages) > int(*most) {
		return nil, reason.New(reason.QueueFull, "full")
	}
	stored := &ipcdv1.Stored{FirstSequence: q.next + 1, Count: uint32(len(messages)), SendTime: timestamppb.Now()}
	for i, m := range messages {
		if first := slices.IndexFunc(q.messages, func(o *fakeMessage) bool {
			return m.GetDedupId() != "" && o.m.GetDedupId() == m.GetDedupId()
		}); first >= 0 {
			stored.Duplicates = append(stored.Duplicates, &ipcdv1.Duplicate{Index: uint32(i), Sequence: q.messages[first].sequence})
			continue
		}
		q.next++
		q.messages = append(q.messages, &fakeMessage{m: m, sequence: q.next})
	}
	f.answers[key] = stored
	return stored, nil
}

func (f *fake) Send(_ context.Context, r *ipcdv1.SendRequest) (*ipcdv1.SendResponse, error) {
	stored, e := f.store(r.GetQueue(), r.GetProducerId(), r.GetBatchId(), r.GetInstance(), r.GetMessages())
	if e != nil {
		return nil, statusOf(e)
	}
	return &ipcdv1.SendResponse{Stored: stored}, nil
}

func (f *fake) SendStream(stream grpc.BidiStreamingServer[ipcdv1.SendStreamRequest, ipcdv1.SendStreamResponse]) error {
	r, err := stream.Recv()
	if err != nil {
		return err
	}
	open := r.GetOpen()
	f.note("open stream %s", open.GetInstance())
	f.mu.Lock()
	known := f.queues[open.GetQueue()] != nil
	f.mu.Unlock()
	if !known {
		return statusOf(reason.New(reason.QueueNotFound, "no queue %s", open.GetQueue()))
	}
	for {
		r, err := stream.Recv()
		if err != nil {
			return nil
		}
		b := r.GetBatch()
		result := &ipcdv1.BatchResult{BatchId: b.GetBatchId()}
		stored, e := f.store(open.GetQueue(), open.GetProducerId(), b.GetBatchId(), open.GetInstance(), b.GetMessages())
		if e != nil {
			result.Outcome = &ipcdv1.BatchResult_Error{Error: errorProto(e)}
		} else {
			result.Outcome = &ipcdv1.BatchResult_Stored{Stored: stored}
		}
		if err := stream.Send(&ipcdv1.SendStreamResponse{Results: []*ipcdv1.BatchResult{result}}); err != nil {
			return err
		}
	}
}
