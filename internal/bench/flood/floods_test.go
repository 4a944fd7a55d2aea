//go:build linux

package flood

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/ipcd/ipcd/client"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// floods are what a user can do to the daemon, by name. Each goes on until its process is killed, or something fails,
// and calls flooding once it is under way.
var floods = map[string]func(f *flooder) error{
	"batches": func(f *flooder) error { return f.streams(4, 64, bodyBytes) },
	"large":   func(f *flooder) error { return f.streams(2, 16, 1<<20) },
	"unary":   func(f *flooder) error { return f.unary(4, 64) },
	"consume": func(f *flooder) error { return f.consume(2) },
	"churn":   func(f *flooder) error { return f.churn(16) },
	// Who does little, and does not take what it gets.
	"slow-reader":  func(f *flooder) error { return f.slowReaders(16) },
	"stalled":      func(f *flooder) error { return f.stalledSenders(16) },
	"stalled-peek": func(f *flooder) error { return f.stalledPeeks(16) },
	"stalled-taps": func(f *flooder) error { return f.stalledTaps(16) },
	"all": func(f *flooder) error {
		return together(
			func() error { return f.streams(2, 64, bodyBytes) },
			func() error { return f.streams(1, 16, 1<<20) },
			func() error { return f.unary(2, 32) },
			func() error { return f.consume(1) },
			func() error { return f.churn(4) },
		)
	},
	// What a flooder takes from the victim that never speaks with the daemon: what no daemon can mend.
	"spin": func(f *flooder) error {
		f.flooding()
		return together(spin, spin)
	},
}

func floodNames() []string { return slices.Sorted(maps.Keys(floods)) }

func spin() error {
	for n := 0; ; n++ {
		_ = n
	}
}

// flooder is a user who means no good.
type flooder struct {
	socket string
	c      *client.Client
	say    sync.Once
	mu     sync.Mutex
	queues int
	// How many have called arrive.
	arrived int
}

// flood does what role says.
func flood(role, socket string, c *client.Client) error {
	do, ok := floods[role]
	if !ok {
		return fmt.Errorf("there is no such flood: there are %v", floodNames())
	}
	return do(&flooder{socket: socket, c: c})
}

// flooding tells who measures that it may begin.
func (f *flooder) flooding() { f.say.Do(func() { fmt.Println("flooding") }) }

// arrive is flooding for a flood that is under way once so many have begun.
func (f *flooder) arrive(all int) {
	f.mu.Lock()
	f.arrived++
	last := f.arrived == all
	f.mu.Unlock()
	if last {
		f.flooding()
	}
}

// floodQueues matches what flooders make.
const floodQueues = "flood.*"

// queue makes a queue that forgets what is too much for it, so that a flood can go on.
func (f *flooder) queue() (string, error) {
	f.mu.Lock()
	f.queues++
	name := fmt.Sprintf("/flood.%d.%d", os.Getpid(), f.queues)
	f.mu.Unlock()
	size := 16 << 20
	_, err := f.c.CreateQueue(context.Background(), name, client.QueueSettings{
		MaxBytes: 64 << 20, MaxMessageSize: &size, Overflow: client.OverflowDropOldest, Mqueue: client.KernelQueue{Mode: client.KernelNone},
	})
	return name, err
}

// dial makes a connection of its own.
func (f *flooder) dial(more ...grpc.DialOption) (ipcdv1.MessageServiceClient, error) {
	conn, err := grpc.NewClient("unix://"+f.socket, append(more, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		return nil, err
	}
	return ipcdv1.NewMessageServiceClient(conn), nil
}

// together does all until one fails.
func together(all ...func() error) error {
	failed := make(chan error)
	for _, do := range all {
		go func() { failed <- do() }()
	}
	return <-failed
}

// times is together of n times the same.
func times(n int, do func() error) error { return together(slices.Repeat([]func() error{do}, n)...) }

func messages(n, bytes int) []*ipcdv1.Message {
	all := make([]*ipcdv1.Message, n)
	for i := range all {
		all[i] = &ipcdv1.Message{Type: 1, Body: make([]byte, bytes)}
	}
	return all
}

// streams sends batches on as many connections, none of which waits for an answer before the next.
func (f *flooder) streams(connections, batch, bytes int) error {
	return times(connections, func() error {
		queue, err := f.queue()
		if err != nil {
			return err
		}
		c, err := f.dial()
		if err != nil {
			return err
		}
		stream, err := c.SendStream(context.Background())
		if err != nil {
			return err
		}
		answers := func() error {
			for {
				if _, err := stream.Recv(); err != nil {
					return err
				}
				f.flooding()
			}
		}
		frames := func() error {
			open := &ipcdv1.SendStreamRequest{Kind: &ipcdv1.SendStreamRequest_Open{Open: &ipcdv1.SendStreamOpen{Queue: queue}}}
			request := &ipcdv1.SendStreamRequest{Kind: &ipcdv1.SendStreamRequest_Batch{Batch: &ipcdv1.SendStreamBatch{Messages: messages(batch, bytes)}}}
			for err := stream.Send(open); ; err = stream.Send(request) {
				if err != nil {
					return err
				}
			}
		}
		return together(answers, frames)
	})
}

// unary sends one message a call, with many calls under way on each connection.
func (f *flooder) unary(connections, calls int) error {
	return times(connections, func() error {
		queue, err := f.queue()
		if err != nil {
			return err
		}
		c, err := f.dial()
		if err != nil {
			return err
		}
		request := &ipcdv1.SendRequest{Queue: queue, Messages: messages(1, bodyBytes)}
		return times(calls, func() error {
			for {
				if _, err := c.Send(context.Background(), request); err != nil {
					return err
				}
				f.flooding()
			}
		})
	})
}

// consume takes messages with all the credit there may be and gives them back, so that they come again, for ever.
func (f *flooder) consume(connections int) error {
	return times(connections, func() error {
		queue, err := f.queue()
		if err != nil {
			return err
		}
		c, err := f.dial()
		if err != nil {
			return err
		}
		for range 32 {
			if _, err := c.Send(context.Background(), &ipcdv1.SendRequest{Queue: queue, Messages: messages(1024, bodyBytes)}); err != nil {
				return err
			}
		}
		stream, err := c.Consume(context.Background())
		if err != nil {
			return err
		}
		for _, r := range []*ipcdv1.ConsumeRequest{
			{Kind: &ipcdv1.ConsumeRequest_Open{Open: &ipcdv1.ConsumeOpen{Queue: queue, SettleMode: ipcdv1.SettleMode_SETTLE_MODE_LEASE}}},
			{Kind: &ipcdv1.ConsumeRequest_Credit{Credit: &ipcdv1.Credit{Messages: 1 << 19}}},
		} {
			if err := stream.Send(r); err != nil {
				return err
			}
		}
		for {
			r, err := stream.Recv()
			if err != nil {
				return err
			}
			d := r.GetDeliveries()
			if d == nil {
				continue
			}
			n := uint64(len(d.Deliveries))
			f.flooding()
			for _, r := range []*ipcdv1.ConsumeRequest{
				{Kind: &ipcdv1.ConsumeRequest_Settlements{Settlements: &ipcdv1.Settlements{Settlements: []*ipcdv1.Settlement{{
					Target:  &ipcdv1.Settlement_Tags{Tags: &ipcdv1.TagRange{First: d.FirstTag, Last: d.FirstTag + n - 1}},
					Outcome: &ipcdv1.Settlement_Release{Release: &ipcdv1.Release{}},
				}}}}},
				{Kind: &ipcdv1.ConsumeRequest_Credit{Credit: &ipcdv1.Credit{Messages: n}}},
			} {
				if err := stream.Send(r); err != nil {
					return err
				}
			}
		}
	})
}

// filled makes a queue with as many messages.
func (f *flooder) filled(c ipcdv1.MessageServiceClient, batches int) (string, error) {
	queue, err := f.queue()
	for range batches {
		if err == nil {
			_, err = c.Send(context.Background(), &ipcdv1.SendRequest{Queue: queue, Messages: messages(1024, bodyBytes)})
		}
	}
	return queue, err
}

// slowReaders give all the credit there may be and take a frame a second.
func (f *flooder) slowReaders(n int) error {
	return times(n, func() error {
		c, err := f.dial()
		if err != nil {
			return err
		}
		queue, err := f.filled(c, 8)
		if err != nil {
			return err
		}
		stream, err := c.Consume(context.Background())
		if err != nil {
			return err
		}
		for _, r := range []*ipcdv1.ConsumeRequest{
			{Kind: &ipcdv1.ConsumeRequest_Open{Open: &ipcdv1.ConsumeOpen{Queue: queue, SettleMode: ipcdv1.SettleMode_SETTLE_MODE_CONSUME}}},
			{Kind: &ipcdv1.ConsumeRequest_Credit{Credit: &ipcdv1.Credit{Messages: 1 << 19}}},
		} {
			if err := stream.Send(r); err != nil {
				return err
			}
		}
		var arrived sync.Once
		for {
			if _, err := stream.Recv(); err != nil {
				return err
			}
			arrived.Do(func() { f.arrive(n) })
			time.Sleep(time.Second)
		}
	})
}

// stalledSenders send batches until the daemon takes no more, for they do not take its answers, and then do nothing.
func (f *flooder) stalledSenders(n int) error {
	var sent atomic.Int64
	go func() {
		for last := int64(-1); ; time.Sleep(time.Second) {
			now := sent.Load()
			if now == last && now > 0 {
				f.flooding()
			}
			last = now
		}
	}()
	return times(n, func() error {
		// A window that does not grow, or it would take very many answers to fill it.
		c, err := f.dial(grpc.WithInitialWindowSize(64<<10), grpc.WithInitialConnWindowSize(64<<10))
		if err != nil {
			return err
		}
		queue, err := f.queue()
		if err != nil {
			return err
		}
		stream, err := c.SendStream(context.Background())
		if err != nil {
			return err
		}
		request := &ipcdv1.SendStreamRequest{Kind: &ipcdv1.SendStreamRequest_Open{Open: &ipcdv1.SendStreamOpen{Queue: queue}}}
		batch := &ipcdv1.SendStreamRequest{Kind: &ipcdv1.SendStreamRequest_Batch{Batch: &ipcdv1.SendStreamBatch{Messages: messages(1, 16)}}}
		for ; ; request = batch {
			if err := stream.Send(request); err != nil {
				return err
			}
			sent.Add(1)
		}
	})
}

// stalledPeeks look at full queues and do not take what is shown.
func (f *flooder) stalledPeeks(n int) error {
	return times(n, func() error {
		c, err := f.dial()
		if err != nil {
			return err
		}
		queue, err := f.filled(c, 8)
		if err != nil {
			return err
		}
		stream, err := c.Peek(context.Background(), &ipcdv1.PeekRequest{Queue: queue})
		if err == nil {
			_, err = stream.Recv()
		}
		if err != nil {
			return err
		}
		f.arrive(n)
		<-stream.Context().Done()
		return stream.Context().Err()
	})
}

// stalledTaps tap queues, and follow them with a peek, and take nothing of what they are shown, while a little is sent.
func (f *flooder) stalledTaps(n int) error {
	return times(n, func() error {
		c, err := f.dial()
		if err != nil {
			return err
		}
		queue, err := f.filled(c, 1)
		if err != nil {
			return err
		}
		tap, err := c.Tap(context.Background(), &ipcdv1.TapRequest{Queue: queue})
		if err == nil {
			_, err = tap.Header() // it is open
		}
		if err != nil {
			return err
		}
		if _, err := c.Peek(context.Background(), &ipcdv1.PeekRequest{Queue: queue, Follow: true}); err != nil {
			return err
		}
		for i := 0; ; i++ {
			if _, err := c.Send(context.Background(), &ipcdv1.SendRequest{Queue: queue, Messages: messages(64, bodyBytes)}); err != nil {
				return err
			}
			if i == 20 { // more than the stream takes unread
				f.arrive(n)
			}
			if i >= 20 {
				time.Sleep(time.Second)
			}
		}
	})
}

// churn makes queues, looks at them and removes them, and lists and peeks at what there is.
func (f *flooder) churn(calls int) error {
	ctx := context.Background()
	return times(calls, func() error {
		for {
			name, err := f.queue()
			if err != nil {
				return err
			}
			if _, err := f.c.Queue(name).Send(ctx, client.Message{Body: make([]byte, bodyBytes)}); err != nil {
				return err
			}
			for _, err := range f.c.Queues(ctx, "*") {
				if err != nil {
					return err
				}
			}
			for _, err := range f.c.Queue(name).Peek(ctx, client.PeekOptions{}) {
				if err != nil {
					return err
				}
			}
			if _, err := f.c.DeleteQueue(ctx, name); err != nil {
				return err
			}
			f.flooding()
		}
	})
}
