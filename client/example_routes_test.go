package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"strings"
	"time"

	"github.com/ipcd/ipcd/client"
)

func ExampleQueue_Bind() {
	c, q := prepare("/example-orders")
	defer c.Close()
	ctx := context.Background()
	if _, err := c.CreateQueue(ctx, "/example-audit", client.QueueSettings{Durability: client.DurabilityMemory}); err != nil {
		log.Fatal(err)
	}
	// Messages of type 7 are from now on also stored in /example-audit. If it is full, it goes without.
	info, err := q.Bind(ctx, "/example-audit", client.BindOptions{Selector: client.Type(7), Skip: true})
	if err != nil {
		log.Fatal(err)
	}
	for _, b := range info.Settings.Binds {
		fmt.Println(b.Destination, b.Selector, b.Skip)
	}
	if _, err := q.Unbind(ctx, "/example-audit"); err != nil {
		log.Fatal(err)
	}
	// Output: /example-audit 7 true
}

func ExampleQueue_Move() {
	c, q := prepare("/example-move", "a", "b", "c")
	defer c.Close()
	ctx := context.Background()
	if _, err := c.CreateQueue(ctx, "/example-aside", client.QueueSettings{Durability: client.DurabilityMemory}); err != nil {
		log.Fatal(err)
	}
	n, err := q.Move(ctx, "/example-aside", client.MoveOptions{Filter: client.Filter{States: []client.State{client.StateReady}}})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(n, "moved")
	// Output: 3 moved
}

func ExampleQueue_Redrive() {
	c, _ := prepare("/example-redrive")
	defer c.Close()
	all, err := c.Queue("/dead").Redrive(context.Background(), client.RedriveOptions{})
	if err != nil {
		log.Fatal(err)
	}
	for _, r := range all {
		fmt.Println(r.Queue, r.Messages)
		if r.Err != nil {
			fmt.Println("the rest stays:", r.Err)
		}
	}
}

func ExampleQueue_Import() {
	c, q := prepare("/example-export", "a", "b")
	defer c.Close()
	ctx := context.Background()
	if _, err := c.CreateQueue(ctx, "/example-import", client.QueueSettings{Durability: client.DurabilityMemory}); err != nil {
		log.Fatal(err)
	}
	var all []*client.Peeked
	for m, err := range q.Peek(ctx, client.PeekOptions{Order: client.BySequence}) {
		if err != nil {
			log.Fatal(err)
		}
		all = append(all, m)
	}
	sent, err := c.Queue("/example-import").Import(ctx, all)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(sent), "imported")
	// Output: 2 imported
}

func ExampleQueue_Tap() {
	c, q := prepare("/example-tap")
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for m, err := range q.Tap(ctx, client.TapOptions{
		OnOpen: func() {
			if _, err := q.Send(ctx, client.Message{Body: []byte("hello")}); err != nil {
				log.Fatal(err)
			}
		},
		OnSkipped: func(n uint64) { log.Printf("%d messages came too fast", n) },
	}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s\n", m.Body)
		cancel() // ends the loop
	}
	// Output: hello
}

func ExampleClient_OpenTemporary() {
	c, _ := prepare("/example-temporary")
	defer c.Close()
	ctx := context.Background()
	q, err := c.OpenTemporary(ctx, client.QueueSettings{MaxMessages: 100})
	if err != nil {
		log.Fatal(err)
	}
	defer q.Close()
	// Whoever is told q.Name() may send to it.
	if _, err := c.Queue(q.Name()).Send(ctx, client.Message{Body: []byte("hello")}); err != nil {
		log.Fatal(err)
	}
	deliveries, err := q.Receive(ctx, 1, client.ReceiveOptions{Wait: 5 * time.Second, AtOnce: true})
	if err != nil {
		log.Fatal(err)
	}
	for _, d := range deliveries {
		fmt.Printf("%s\n", d.Body)
	}
	// Output: hello
}

func ExampleClient_Request() {
	c, q := prepare("/example-request")
	defer c.Close()
	serving, stop := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	go func() { // elsewhere, as a rule
		stopped <- q.Respond(serving, func(_ context.Context, d *client.Delivery) (client.Message, error) {
			return client.Message{Body: []byte(strings.ToUpper(string(d.Body)))}, nil
		}, client.ConsumeOptions{Concurrency: 4})
	}()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	reply, err := c.Request(ctx, "/example-request", client.Message{Body: []byte("hello")})
	switch {
	case errors.Is(err, client.ErrTimedOut):
		log.Print("nobody answers")
	case errors.Is(err, client.ErrReplyLost):
		log.Print("it may have been done or not")
	case err != nil:
		log.Fatal(err)
	default:
		fmt.Printf("%s\n", reply.Body)
	}
	stop()
	if err := <-stopped; err != nil {
		log.Fatal(err)
	}
	// Output: HELLO
}

func ExampleClient_ReceiveAny() {
	c, _ := prepare("/example-first")
	defer c.Close()
	low, q := prepare("/example-second", "a")
	defer low.Close()
	ctx := context.Background()
	deliveries, err := c.ReceiveAny(ctx, []string{"/example-first", q.Name()}, 10, client.ReceiveOptions{Wait: 5 * time.Second})
	if err != nil {
		log.Fatal(err)
	}
	for _, d := range deliveries {
		fmt.Printf("%s: %s\n", d.Queue, d.Body)
		if err := d.Ack(ctx); err != nil {
			log.Fatal(err)
		}
	}
	// Output: /example-second: a
}

func ExampleClient_ConsumeAny() {
	c, _ := prepare("/example-mails", "a mail")
	defer c.Close()
	ctx, stop := context.WithTimeout(context.Background(), 10*time.Second)
	defer stop()
	other, _ := prepare("/example-bills")
	defer other.Close()
	err := c.ConsumeAny(ctx, []string{"/example-mails", "/example-bills"}, func(_ context.Context, d *client.Delivery) error {
		fmt.Printf("%s: %s\n", d.Queue, d.Body)
		stop()
		return nil // ack
	}, client.ConsumeOptions{Concurrency: 4})
	if err != nil {
		log.Fatal(err)
	}
	// Output: /example-mails: a mail
}
