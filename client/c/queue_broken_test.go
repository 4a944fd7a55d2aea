//go:build linux

package c_test

import (
	"context"
	"io"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/ipcd/ipcd/client"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// middle stands between a client and its daemon, and can break connections at a chosen moment.
type middle struct {
	t      *testing.T
	socket string
	to     string
	cut    atomic.Int32 // of so many answers from now on, none arrives: the connection is closed instead
	// onCut is called before a connection is closed for that. It may be nil.
	onCut func()
	mu    sync.Mutex
	conns []net.Conn
}

// between starts a middle that passes calls on to the daemon, one frame of gRPC after the other.
func between(t *testing.T, d *broker, onCut func()) *middle {
	t.Helper()
	m := &middle{t: t, onCut: onCut, socket: filepath.Join(d.dir, "m"), to: d.socket}
	l, err := net.Listen("unix", m.socket)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			m.mu.Lock()
			m.conns = append(m.conns, conn)
			m.mu.Unlock()
			all.Go(func() { m.serve(conn) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		m.hangUp()
		all.Wait()
	})
	return m
}

// hangUp closes all connections.
func (m *middle) hangUp() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, conn := range m.conns {
		conn.Close()
	}
	m.conns = nil
}

// serve copies both ways. What the daemon answers once a cut is due is dropped, if it has the data of a call in it.
func (m *middle) serve(conn net.Conn) {
	defer conn.Close()
	daemon, err := net.Dial("unix", m.to)
	if err != nil {
		return
	}
	defer daemon.Close()
	go func() {
		_, _ = io.Copy(daemon, conn)
		daemon.Close()
	}()
	header := make([]byte, 9)
	for {
		if _, err := io.ReadFull(daemon, header); err != nil {
			return
		}
		frame := make([]byte, 9+int(header[0])<<16+int(header[1])<<8+int(header[2]))
		copy(frame, header)
		if _, err := io.ReadFull(daemon, frame[9:]); err != nil {
			return
		}
		if header[3] == 0 && m.cut.Load() > 0 { // DATA
			m.cut.Add(-1)
			if m.onCut != nil {
				m.onCut()
			}
			return
		}
		if _, err := conn.Write(frame); err != nil {
			return
		}
	}
}

func TestASendWhoseAnswerIsLostIsStoredOnce_S9(t *testing.T) {
	d := startDaemon(t)
	q := d.queue("/once", client.QueueSettings{})
	m := between(t, d, nil)
	c := drive(t, m.socket)
	c.good("send /once type=1") // the connection is there
	for lost := int32(1); lost <= 3; lost++ {
		m.cut.Store(lost) // the answers to the batch and its repeats
		r := c.good("send /once type=5 count=2")
		if m.cut.Load() > 0 {
			t.Fatalf("%d answers were not lost", m.cut.Load())
		}
		if first := r.lines[0].number("sequence"); r.lines[1].number("sequence") != first+1 || first != int64(2*lost) {
			t.Errorf("%v", r.lines)
		}
	}
	info, err := q.Info(t.Context())
	if err != nil || info.Stats.Ready != 7 {
		t.Errorf("%d messages are there, not 7 (%v)", info.Stats.Ready, err)
	}
}

// TestASendWhoseAnswerIsLostWithTheDaemon: the journal remembers whose batch it was; a queue in memory does not.
func TestASendWhoseAnswerIsLostWithTheDaemon_S9(t *testing.T) {
	d := startDaemon(t)
	kept := d.queue("/kept", client.QueueSettings{})
	lost := d.queue("/lost", client.QueueSettings{Durability: client.DurabilityMemory})
	m := between(t, d, func() {
		d.kill()
		d.start()
	})
	c := drive(t, m.socket)
	c.good("send /kept type=1")
	m.cut.Store(1)
	c.good("send /kept type=2")
	c.good("send /lost type=1")
	m.cut.Store(1)
	c.bad(syscall.ECONNRESET, "OUTCOME_UNKNOWN", "send /lost type=2")
	c.good("send /lost type=3")
	for q, want := range map[*client.Queue][]int64{kept: {1, 2}, lost: {3}} {
		got, err := q.Receive(t.Context(), 10, client.ReceiveOptions{AtOnce: true})
		types := []int64{}
		for _, m := range got {
			types = append(types, m.Type)
		}
		if err != nil || !slices.Equal(types, want) {
			t.Errorf("%s has types %v, not %v (%v)", q.Name(), types, want, err)
		}
	}
}

func TestASendToADaemonThatIsGoneSaysSo(t *testing.T) {
	d := startDaemon(t)
	d.queue("/jobs", client.QueueSettings{})
	c := drive(t, d.socket)
	c.good("send /jobs")
	d.kill()
	c.bad(syscall.ECONNREFUSED, "UNREACHABLE", "send /jobs")
	c.bad(syscall.ECONNREFUSED, "UNREACHABLE", "receive /jobs wait=60000")
	c.bad(syscall.ECONNREFUSED, "UNREACHABLE", "peek /jobs")
}

func TestTheClientComesBackToARestartedDaemon(t *testing.T) {
	d := startDaemon(t)
	d.queue("/jobs", client.QueueSettings{})
	c := drive(t, d.socket)
	for round := range 3 {
		c.good("send /jobs count=2")
		receipt := c.good("receive /jobs").lines[0]["receipt"]
		d.kill()
		d.start()
		switch round {
		case 0:
			c.good("send /jobs")
		case 1:
			c.good("peek /jobs")
		}
		c.bad(syscall.ESTALE, "STALE_RECEIPT", "settle 0:%s", receipt)
	}
	if r := c.good("receive /jobs n=100"); r.n != 7 {
		t.Errorf("%d messages are there, not 7", r.n)
	}
}

func TestAWaitingReceiveOutlastsARestart(t *testing.T) {
	d := startDaemon(t)
	q := d.queue("/jobs", client.QueueSettings{})
	waits := func() bool {
		info, err := q.Info(t.Context())
		return err == nil && info.Stats.Receivers == 1
	}
	c := drive(t, d.socket)
	for _, wait := range []string{"60000", "-1"} {
		c.tell("receive /jobs wait=%s", wait)
		eventually(t, "the receiver waits", waits)
		d.kill()
		d.start()
		eventually(t, "the receiver waits again", waits)
		if _, err := q.Send(t.Context(), client.Message{}); err != nil {
			t.Fatal(err)
		}
		r := c.answer()
		if r.n != 1 {
			t.Fatalf("wait %s: %v", wait, r)
		}
		c.good("settle 0:%s", r.lines[0]["receipt"])
	}
	// What is consumed at once may be lost with the answer, so that is no receive to make again.
	c.tell("receive /jobs n=100 consume=1 wait=60000 select=type type=9")
	eventually(t, "the receiver waits", waits)
	d.kill()
	if r := c.answer(); r.n != -int64(syscall.ECONNRESET) || r.reason != "OUTCOME_UNKNOWN" {
		t.Errorf("%v", r)
	}
	d.start()
}

func TestAChildMayGoOnWithTheClientOfItsParent(t *testing.T) {
	d := startDaemon(t)
	d.queue("/family", client.QueueSettings{})
	c := drive(t, d.socket)
	c.good("send /family type=1")
	receipt := c.good("receive /family").lines[0]["receipt"]
	if r := c.good("fork /family"); r.n != 0 {
		t.Errorf("the child: %v", r)
	}
	c.good("fork /family idle=1") // it closes the client and nothing else
	c.good("send /family type=3")
	c.good("settle 0:%s", receipt)
	connections := 0
	for conn, err := range d.client().Clients(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if conn.UserAgent == "ipcd-c" {
			connections++
		}
	}
	if connections != 1 {
		t.Errorf("%d connections: the parent's has not lasted", connections)
	}
	expect(t, "types", c.good("receive /family n=9").all("message", "type"), "2", "3")
}

// sleeper is a daemon that does not answer.
type sleeper struct {
	ipcdv1.UnimplementedMessageServiceServer
	ipcdv1.UnimplementedSystemServiceServer
	calls chan proto.Message
}

func (s *sleeper) GetInfo(context.Context, *ipcdv1.GetInfoRequest) (*ipcdv1.GetInfoResponse, error) {
	return &ipcdv1.GetInfoResponse{Instance: "i"}, nil
}

func (s *sleeper) Send(ctx context.Context, r *ipcdv1.SendRequest) (*ipcdv1.SendResponse, error) {
	s.calls <- r
	<-ctx.Done()
	return nil, ctx.Err()
}

func (s *sleeper) Receive(ctx context.Context, r *ipcdv1.ReceiveRequest) (*ipcdv1.ReceiveResponse, error) {
	s.calls <- r
	<-ctx.Done()
	return nil, ctx.Err()
}

func (s *sleeper) Peek(r *ipcdv1.PeekRequest, stream ipcdv1.MessageService_PeekServer) error {
	s.calls <- r
	<-stream.Context().Done()
	return stream.Context().Err()
}

// serve runs a gRPC server at a socket until the test ends.
func serve(t *testing.T, register func(*grpc.Server), options ...grpc.ServerOption) string {
	t.Helper()
	needNghttp2(t)
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(options...)
	register(server)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l)
	}()
	t.Cleanup(func() {
		server.Stop()
		<-done
	})
	return path
}

func TestCallsEndAtTheirDeadline(t *testing.T) {
	s := &sleeper{calls: make(chan proto.Message, 16)}
	socket := serve(t, func(server *grpc.Server) {
		ipcdv1.RegisterMessageServiceServer(server, s)
		ipcdv1.RegisterSystemServiceServer(server, s)
	})
	c := drive(t, socket)
	c.tell("timeout 100")
	c.bad(syscall.ETIMEDOUT, "TIMED_OUT", "peek /q")
	c.bad(syscall.ETIMEDOUT, "TIMED_OUT", "receive /q wait=50")
	c.bad(syscall.ECONNRESET, "OUTCOME_UNKNOWN", "send /q type=5") // it went out
	for range 2 {
		<-s.calls
	}
	if r := (<-s.calls).(*ipcdv1.SendRequest); r.GetWait().AsDuration() >= 100e6 || r.GetInstance() != "i" || r.GetBatchId() != 1 || r.GetProducerId() == "" || r.GetMessages()[0].GetType() != 5 {
		t.Errorf("%v", r)
	}
	// A server that is never heard of: a socket at which nobody accepts.
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c.good("open %s timeout=100", path)
	c.bad(syscall.ETIMEDOUT, "TIMED_OUT", "send /q type=5") // GetInfo was not answered, so nothing was sent
}
