//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/ipcd/ipcd/client"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// proxy stands between clients and a daemon and breaks connections at chosen moments.
type proxy struct {
	socket   string
	mute     atomic.Bool  // what the daemon answers is thrown away
	orphan   atomic.Bool  // the daemon does not hear that a client's connection broke
	requests atomic.Int64 // bytes that clients may still send before their connection is cut; negative: no bound

	mu    sync.Mutex
	conns []net.Conn // guarded by mu
}

func startProxy(t *testing.T, d *daemon) *proxy {
	t.Helper()
	p := &proxy{socket: filepath.Join(shortDir(t), "proxy")}
	p.requests.Store(-1)
	l, err := net.Listen("unix", p.socket)
	if err != nil {
		t.Fatal(err)
	}
	var copying sync.WaitGroup
	copying.Go(func() {
		for {
			down, err := l.Accept()
			if err != nil {
				return
			}
			up, err := net.Dial("unix", d.socket)
			if err != nil {
				down.Close() // the daemon is not there
				continue
			}
			p.mu.Lock()
			p.conns = append(p.conns, down, up)
			p.mu.Unlock()
			copying.Go(func() { p.forward(up, down) })
			copying.Go(func() { p.backward(down, up) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		p.cut()
		copying.Wait()
	})
	return p
}

// forward passes requests on.
func (p *proxy) forward(up, down net.Conn) {
	defer func() {
		down.Close()
		if !p.orphan.Load() {
			up.Close()
		}
	}()
	buffer := make([]byte, 32<<10)
	for {
		n, err := down.Read(buffer)
		if err != nil {
			return
		}
		if allowed := p.requests.Load(); allowed >= 0 {
			n = min(n, int(allowed))
			if p.requests.Add(-int64(n)) == 0 {
				_, _ = up.Write(buffer[:n])
				return
			}
		}
		if _, err := up.Write(buffer[:n]); err != nil {
			return
		}
	}
}

// backward passes answers on, unless they are muted.
func (p *proxy) backward(down, up net.Conn) {
	defer up.Close()
	defer down.Close()
	buffer := make([]byte, 32<<10)
	for {
		n, err := up.Read(buffer)
		if err != nil {
			return
		}
		if p.mute.Load() {
			continue
		}
		if _, err := down.Write(buffer[:n]); err != nil {
			return
		}
	}
}

// cut breaks all connections.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		c.Close()
	}
	p.conns = nil
}

// abandon breaks the connections to the clients and keeps those to the daemon, as a network does that
// loses every packet.
func (p *proxy) abandon() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.orphan.Store(true)
	for i := 0; i < len(p.conns); i += 2 {
		p.conns[i].Close()
	}
}

// ways are the two ways to send a batch: each returns a function that sends one and waits for the answer.
var ways = map[string]func(t *testing.T, q *client.Queue) func() ([]client.Sent, error){
	"Send": func(t *testing.T, q *client.Queue) func() ([]client.Sent, error) {
		return func() ([]client.Sent, error) { return q.Send(within(t), text("a", "b")...) }
	},
	"Sender": func(t *testing.T, q *client.Queue) func() ([]client.Sent, error) {
		sender, err := q.Sender(within(t), client.SenderOptions{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = sender.Close() }) // each answer is looked at for itself
		return func() ([]client.Sent, error) {
			pending, err := sender.Send(within(t), text("a", "b")...)
			if err != nil {
				return nil, err
			}
			return pending.Wait(within(t))
		}
	},
}

type answer struct {
	sent []client.Sent
	err  error
}

// sendUnanswered sends a batch through the proxy, which passes it on and throws the answer away, and
// returns when the daemon has stored it.
func sendUnanswered(t *testing.T, p *proxy, direct *client.Queue, send func() ([]client.Sent, error)) <-chan answer {
	t.Helper()
	if _, err := send(); err != nil { // the connection is there and the daemon known
		t.Fatal(err)
	}
	before := info(t, direct).Stats.SentTotal
	answers := make(chan answer, 1)
	p.mute.Store(true)
	go func() {
		sent, err := send()
		answers <- answer{sent, err}
	}()
	awaitStats(t, direct, "the batch is stored", func(s client.QueueStats) bool { return s.SentTotal == before+2 })
	return answers
}

func TestBatchWhoseAnswerIsLostIsStoredOnce_S9(t *testing.T) {
	t.Parallel()
	d := start(t)
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			direct := create(t, d.dial(t), memory())
			p := startProxy(t, d)
			answers := sendUnanswered(t, p, direct, way(t, dial(t, p.socket).Queue(direct.Name())))
			p.mute.Store(false)
			p.cut()
			a := <-answers
			if a.err != nil {
				t.Fatal(a.err)
			}
			if s := info(t, direct).Stats; s.SentTotal != 4 || s.Ready != 4 {
				t.Errorf("after two batches of two: %+v", s)
			}
			if a.sent[0].Sequence != 3 || a.sent[1].Sequence != 4 {
				t.Errorf("the answer names %+v, want the sequences 3 and 4", a.sent)
			}
		})
	}
}

func TestBatchLostTogetherWithTheDaemonIsUnknown_S9(t *testing.T) {
	t.Parallel()
	for name, way := range ways {
		for _, made := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, queue made again %v", name, made), func(t *testing.T) {
				dir := shortDir(t)
				d := startIn(t, dir)
				direct := create(t, d.dial(t), memory())
				p := startProxy(t, d)
				answers := sendUnanswered(t, p, direct, way(t, dial(t, p.socket).Queue(direct.Name())))
				d.kill()
				d = startIn(t, dir)
				again := d.dial(t)
				if made {
					if _, err := again.CreateQueue(within(t), direct.Name(), memory()); err != nil {
						t.Fatal(err)
					}
				}
				p.mute.Store(false) // only now may the client reach the next run
				p.cut()
				if a := <-answers; !errors.Is(a.err, client.ErrOutcomeUnknown) {
					t.Errorf("the next run of the daemon cannot know the batch: %v, want OUTCOME_UNKNOWN", a.err)
				}
				if made {
					if s := info(t, again.Queue(direct.Name())).Stats; s.SentTotal != 0 {
						t.Errorf("%d messages were sent again", s.SentTotal)
					}
				}
			})
		}
	}
}

func TestBatchThatWaitsTwiceIsStoredOnce_S7_S9(t *testing.T) {
	t.Parallel()
	d := start(t)
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			direct := create(t, d.dial(t), memory(func(s *client.QueueSettings) { s.MaxMessages, s.Overflow = 2, client.OverflowBlock }))
			p := startProxy(t, d)
			q := dial(t, p.socket).Queue(direct.Name())
			send := way(t, q)
			if _, err := send(); err != nil {
				t.Fatal(err)
			}
			answers := make(chan answer, 1)
			go func() {
				sent, err := send()
				answers <- answer{sent, err}
			}()
			awaitStats(t, direct, "the batch waits for room", func(s client.QueueStats) bool { return s.BlockedSenders == 1 })
			p.abandon()
			awaitStats(t, direct, "the batch waits twice", func(s client.QueueStats) bool { return s.BlockedSenders == 2 })
			receive(t, direct, 2, client.ReceiveOptions{AtOnce: true})
			a := <-answers
			if a.err != nil || a.sent[0].Sequence != 3 {
				t.Errorf("answered %+v, %v", a.sent, a.err)
			}
			receive(t, direct, 2, client.ReceiveOptions{AtOnce: true})
			awaitStats(t, direct, "nobody waits", func(s client.QueueStats) bool { return s.BlockedSenders == 0 })
			if s := info(t, direct).Stats; s.SentTotal != 4 || s.Messages() != 0 {
				t.Errorf("after two batches of two: %+v", s)
			}
		})
	}
}

func TestIdleSenderClosesWithoutTheDaemon_S9(t *testing.T) {
	t.Parallel()
	d := start(t)
	q := create(t, d.dial(t), memory())
	sender, err := q.Sender(context.Background(), client.SenderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	pending, err := sender.Send(within(t), client.Message{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pending.Wait(within(t)); err != nil {
		t.Fatal(err)
	}
	d.kill()
	closed := make(chan error, 1)
	go func() { closed <- sender.Close() }()
	select {
	case err := <-closed:
		if err != nil {
			t.Errorf("close with nothing under way: %v", err)
		}
	case <-time.After(patience):
		t.Error("close waits for the daemon with nothing under way")
	}
}

func TestHalfABatchIsNoBatch_S6(t *testing.T) {
	t.Parallel()
	d := start(t)
	direct := create(t, d.dial(t), memory(func(s *client.QueueSettings) { s.MaxMessageSize = new(1 << 20) }))
	half := &ipcdv1.SendStreamRequest{Kind: &ipcdv1.SendStreamRequest_Batch{Batch: &ipcdv1.SendStreamBatch{
		BatchId: 2, Messages: []*ipcdv1.Message{{Body: make([]byte, 400<<10)}, {Body: make([]byte, 400<<10)}},
	}}}
	for _, after := range []int64{1, 1000, 500 << 10, 800 << 10} {
		p := startProxy(t, d)
		conn, err := grpc.NewClient("unix://"+p.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		stream, err := ipcdv1.NewMessageServiceClient(conn).SendStream(within(t))
		if err != nil {
			t.Fatal(err)
		}
		for _, request := range []*ipcdv1.SendStreamRequest{
			{Kind: &ipcdv1.SendStreamRequest_Open{Open: &ipcdv1.SendStreamOpen{Queue: direct.Name(), ProducerId: "half"}}},
			{Kind: &ipcdv1.SendStreamRequest_Batch{Batch: &ipcdv1.SendStreamBatch{BatchId: 1, Messages: []*ipcdv1.Message{{}}}}},
		} {
			if err := stream.Send(request); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := stream.Recv(); err != nil { // the stream is open: all that follows is the second batch
			t.Fatal(err)
		}
		p.requests.Store(after)
		_ = stream.Send(half) // how far it comes is the proxy's
		for err == nil {
			_, err = stream.Recv()
		}
		if errors.Is(err, io.EOF) || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("cut after %d bytes the stream ended with %v", after, err)
		}
	}
	// Each round has the same producer and batch, which is stored once.
	if s := info(t, direct).Stats; s.Messages() != 1 {
		t.Errorf("%d messages are there, want the first batch's alone", s.Messages())
	}
}

func TestConsumerSurvivesABrokenConnection_S16(t *testing.T) {
	t.Parallel()
	d := start(t)
	direct := create(t, d.dial(t), memory())
	p := startProxy(t, d)
	send(t, direct, text("work")...)
	ctx, stop := context.WithCancel(within(t))
	var attempts []int
	err := dial(t, p.socket).Queue(direct.Name()).Consume(ctx, func(handler context.Context, m *client.Delivery) error {
		if attempts = append(attempts, m.Attempts); len(attempts) == 1 {
			p.cut()
			<-handler.Done() // the message is no longer this handler's
			if err := m.Ack(within(t)); !errors.Is(err, client.ErrStaleReceipt) {
				t.Errorf("ack over a broken stream: %v, want STALE_RECEIPT", err)
			}
			return nil
		}
		stop()
		return nil
	}, client.ConsumeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(attempts) != 2 || attempts[0] != 0 || attempts[1] != 1 {
		t.Errorf("attempts at each delivery: %v, want 0 and then 1", attempts)
	}
	if s := info(t, direct).Stats; s.Messages() != 0 || s.LeaseExpiredTotal != 1 {
		t.Errorf("afterwards %+v", s)
	}
}
