package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/ipcd/ipcd/client"
)

func Example() {
	c, err := client.Dial("") // the daemon on this host
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	ctx := context.Background()
	if _, err := c.CreateQueue(ctx, "/greetings", client.QueueSettings{}); err != nil {
		log.Fatal(err)
	}
	q := c.Queue("/greetings")
	if _, err := q.Send(ctx, client.Message{Type: 7, Body: []byte("hello")}); err != nil {
		log.Fatal(err)
	}
	deliveries, err := q.Receive(ctx, 1, client.ReceiveOptions{Wait: 5 * time.Second})
	if err != nil {
		log.Fatal(err)
	}
	for _, d := range deliveries {
		fmt.Printf("%d: %s\n", d.Type, d.Body)
		if err := d.Ack(ctx); err != nil {
			log.Fatal(err)
		}
	}
	// Output: 7: hello
}

func ExampleDial() {
	c, err := client.Dial("127.0.0.1:7475", client.WithInsecure())
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	fmt.Println(c.Target())
	_, err = client.Dial("192.0.2.1:7475", client.WithInsecure())
	fmt.Println(errors.Is(err, client.ErrInvalidArgument))
	// Output:
	// 127.0.0.1:7475
	// true
}

// prepare makes a queue for an example.
func prepare(name string, bodies ...string) (*client.Client, *client.Queue) {
	c, err := client.Dial("")
	if err != nil {
		log.Fatal(err)
	}
	if _, err := c.CreateQueue(context.Background(), name, client.QueueSettings{Durability: client.DurabilityMemory}); err != nil {
		log.Fatal(err)
	}
	q := c.Queue(name)
	for _, b := range bodies {
		if _, err := q.Send(context.Background(), client.Message{Body: []byte(b)}); err != nil {
			log.Fatal(err)
		}
	}
	return c, q
}

func ExampleClient_CreateQueue() {
	c, _ := prepare("/example-create")
	defer c.Close()
	var created bool
	info, err := c.CreateQueue(context.Background(), "/mails", client.QueueSettings{
		Durability:  client.DurabilityMemory,
		MaxMessages: 10_000,
		Lease:       time.Minute,
		DedupWindow: new(time.Hour),
		TypeNames:   map[string]int64{"welcome": 1, "reminder": 2},
		Mode:        new(uint32(0o660)),
	}, client.ReportCreated(&created))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(info.Name, created, info.Settings.Lease)
	// Output: /mails true 1m0s
}

func ExampleClient_UpdateQueue() {
	c, _ := prepare("/example-update")
	defer c.Close()
	info, err := c.UpdateQueue(context.Background(), "/example-update", client.QueueSettings{Lease: 2 * time.Minute}, "lease")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(info.Settings.Lease)
	// Output: 2m0s
}

func ExampleClient_Queues() {
	c, _ := prepare("/example-list")
	defer c.Close()
	for info, err := range c.Queues(context.Background(), "example-l*") {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(info.Name)
	}
	// Output: /example-list
}

func ExampleClient_PurgeQueue() {
	c, _ := prepare("/example-purge")
	defer c.Close()
	n, err := c.PurgeQueue(context.Background(), "/example-purge", client.SelectOptions{
		Filter: client.Filter{OlderThan: 24 * time.Hour},
		DryRun: true,
		Limit:  100,
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(n, "would go")
}

func ExampleClient_Settle() {
	c, q := prepare("/example-settle", "a", "b")
	defer c.Close()
	ctx := context.Background()
	deliveries, err := q.Receive(ctx, 2, client.ReceiveOptions{})
	if err != nil {
		log.Fatal(err)
	}
	var all []client.Settlement
	for _, d := range deliveries {
		all = append(all, client.Settlement{Receipt: d.Receipt, Outcome: client.OutcomeAck})
	}
	fmt.Println(c.Settle(ctx, all...))
	fmt.Println(errors.Is(c.Settle(ctx, all...), client.ErrStaleReceipt)) // they are over now
	// Output:
	// <nil>
	// true
}

func ExampleQueue_Send() {
	c, q := prepare("/example-send")
	defer c.Close()
	sent, err := q.Send(context.Background(), // all or nothing
		client.Message{Body: []byte("first"), Headers: map[string][]byte{"lang": []byte("en")}},
		client.Message{Body: []byte("second"), Priority: 9, TTL: time.Hour, DedupID: "order-17"},
	)
	if errors.Is(err, client.ErrQueueFull) {
		log.Fatal("try again later")
	}
	if err != nil {
		log.Fatal(err)
	}
	for _, s := range sent {
		fmt.Println(s.Sequence, s.Duplicate)
	}
	// Output:
	// 1 false
	// 2 false
}

func ExampleQueue_Sender() {
	c, q := prepare("/example-sender")
	defer c.Close()
	ctx := context.Background()
	s, err := q.Sender(ctx, client.SenderOptions{})
	if err != nil {
		log.Fatal(err)
	}
	for i := range 1000 {
		if _, err := s.Send(ctx, client.Message{Body: fmt.Append(nil, i)}); err != nil {
			log.Fatal(err)
		}
	}
	last, err := s.Send(ctx, client.Message{Body: []byte("last")})
	if err != nil {
		log.Fatal(err)
	}
	if err := s.Close(); err != nil { // all is stored
		log.Fatal(err)
	}
	sent, err := last.Wait(ctx)
	fmt.Println(sent[0].Sequence, err)
	// Output: 1001 <nil>
}

func ExampleQueue_Receive() {
	c, q := prepare("/example-receive", "work")
	defer c.Close()
	ctx := context.Background()
	deliveries, err := q.Receive(ctx, 10, client.ReceiveOptions{
		Selector: client.OneOf(1, 2, 3),
		Wait:     time.Second,
		Lease:    time.Minute,
	})
	if err != nil {
		log.Fatal(err)
	}
	for _, d := range deliveries {
		fmt.Printf("%s\n", d.Body)
		if err := d.Nack(ctx, 10*time.Second, "the printer is out of paper"); err != nil {
			log.Fatal(err)
		}
	}
	// Output: work
}

func ExampleQueue_Consume() {
	c, q := prepare("/example-consume", "a", "b", "c")
	defer c.Close()
	ctx, stop := context.WithCancel(context.Background()) // or signal.NotifyContext
	handle := func(ctx context.Context, d *client.Delivery) error {
		fmt.Printf("%s\n", d.Body) // an error would nack it
		if string(d.Body) == "c" {
			stop()
		}
		return nil
	}
	if err := q.Consume(ctx, handle, client.ConsumeOptions{}); err != nil {
		log.Fatal(err)
	}
	// Output:
	// a
	// b
	// c
}

// Each order becomes one invoice, exactly once: it is acked in the transaction that stores the invoice.
func ExampleClient_Transact() {
	c, orders := prepare("/example-orders", "2 apples", "3 pears")
	defer c.Close()
	_, err := c.CreateQueue(context.Background(), "/example-invoices", client.QueueSettings{})
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	handle := func(ctx context.Context, d *client.Delivery) error {
		if d.Sequence == 2 {
			stop()
		}
		return c.Transact(ctx, func(tx *client.Tx) error {
			tx.Send("/example-invoices", client.Message{Body: fmt.Appendf(nil, "please pay %s", d.Body)})
			tx.Ack(d)
			return nil // an error here would do neither
		})
	}
	if err := orders.Consume(ctx, handle, client.ConsumeOptions{Receipts: true}); err != nil {
		log.Fatal(err)
	}
	deliveries, err := c.Queue("/example-invoices").Receive(context.Background(), 10, client.ReceiveOptions{})
	if err != nil {
		log.Fatal(err)
	}
	for _, d := range deliveries {
		fmt.Printf("%s\n", d.Body)
	}
	// Output:
	// please pay 2 apples
	// please pay 3 pears
}

func ExampleQueue_Peek() {
	c, q := prepare("/example-peek", "a", "b")
	defer c.Close()
	for p, err := range q.Peek(context.Background(), client.PeekOptions{Limit: 20}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%d %s %s\n", p.Sequence, p.State, p.Body)
	}
	// Output:
	// 1 ready a
	// 2 ready b
}

func ExampleClient_CreateRing() {
	c, err := client.Dial("")
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	var created bool
	info, err := c.CreateRing(context.Background(), "/example-trades", client.RingSettings{
		CapacityBytes: 1 << 20,
		Policy:        client.RingLossless,
		Stall:         2 * time.Second,
		Mode:          new(uint32(0o660)),
	}, client.ReportCreated(&created))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(info.Name, created, info.Settings.Policy)
	// Output: /example-trades true lossless
}

func ExampleClient_Rings() {
	c := prepareRing("/example-rings")
	defer c.Close()
	for info, err := range c.Rings(context.Background(), "example-r*") {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(info.Name)
	}
	// Output: /example-rings
}

// prepareRing makes a ring for an example.
func prepareRing(name string) *client.Client {
	c, err := client.Dial("")
	if err != nil {
		log.Fatal(err)
	}
	if _, err := c.CreateRing(context.Background(), name, client.RingSettings{}); err != nil {
		log.Fatal(err)
	}
	return c
}

func ExampleRing_Publisher() {
	c := prepareRing("/example-publish")
	defer c.Close()
	ctx := context.Background()
	p, err := c.Ring("/example-publish").Publisher(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer p.Close()
	published, err := p.Publish(ctx, client.RingMessage{Type: 7, Payload: []byte("a")}, client.RingMessage{Type: 7, Payload: []byte("b")})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(published.FirstSequence, published.Count)
	// Output: 1 2
}

func ExampleRing_Subscribe() {
	c := prepareRing("/example-subscribe")
	defer c.Close()
	ctx := context.Background()
	r := c.Ring("/example-subscribe")
	p, err := r.Publisher(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer p.Close()
	for _, payload := range []string{"a", "b", "c"} {
		if _, err := p.Publish(ctx, client.RingMessage{Payload: []byte(payload)}); err != nil {
			log.Fatal(err)
		}
	}
	for d, err := range r.Subscribe(ctx, client.RingSubscribeOptions{From: client.FromOldest()}) {
		if errors.Is(err, client.ErrRingCorrupt) {
			log.Printf("lane %d is not read on: %v", d.LaneID, err)
			continue
		}
		if err != nil {
			log.Fatal(err)
		}
		if d.Lost > 0 {
			log.Printf("lost %d messages: too slow", d.Lost)
		}
		fmt.Printf("%d %s\n", d.Sequence, d.Payload)
		if d.Sequence == 3 {
			break
		}
	}
	// Output:
	// 1 a
	// 2 b
	// 3 c
}

func ExampleParseRingPosition() {
	for _, text := range []string{"oldest", "newest", "4711"} {
		p, err := client.ParseRingPosition(text)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(p)
	}
	// Output:
	// oldest
	// newest
	// 4711
}

func ExampleError() {
	c, _ := prepare("/example-error")
	defer c.Close()
	_, err := c.GetQueue(context.Background(), "/no-such-queue")
	fmt.Println(errors.Is(err, client.ErrQueueNotFound))
	var e *client.Error
	if errors.As(err, &e) {
		fmt.Println(e.Reason, e.Queue)
	}
	// Output:
	// true
	// QUEUE_NOT_FOUND /no-such-queue
}

func ExampleParseSelector() {
	names := map[string]int64{"created": 7, "deleted": 8}
	for _, text := range []string{"7", "<=7", "!deleted", "created,deleted", "any"} {
		s, err := client.ParseSelector(text, names)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(s)
	}
	// Output:
	// 7
	// upto:7
	// not:8
	// 7,8
	// any
}
