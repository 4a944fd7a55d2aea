//go:build linux

package ring_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/ipcd/ipcd/client/ring"
)

func Example() {
	ctx := context.Background()
	c, err := ring.NewConsumer(ctx, "/ticks", ring.ConsumerOptions{})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	p, err := ring.NewProducer(ctx, "/ticks", ring.ProducerOptions{})
	if err != nil {
		log.Fatal(err)
	}
	defer p.Close()
	if err := p.Publish(7, []byte("hello")); err != nil {
		log.Fatal(err)
	}
	m, err := c.Next(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%d: %s\n", m.Type, m.Payload)
}

// A payload that is built in place is not copied.
func ExampleProducer_Claim() {
	ctx := context.Background()
	p, err := ring.NewProducer(ctx, "/frames", ring.ProducerOptions{})
	if err != nil {
		log.Fatal(err)
	}
	defer p.Close()
	room, err := p.Claim(ctx, p.MaxPayload())
	if err != nil {
		log.Fatal(err)
	}
	n := copy(room, "as much as there is")
	if n == 0 {
		p.Abort()
		return
	}
	if err := p.Commit(1, n); err != nil {
		log.Fatal(err)
	}
}

// In a lossless ring a producer can do something else instead of waiting.
func ExampleProducer_TryPublish() {
	p, err := ring.NewProducer(context.Background(), "/orders", ring.ProducerOptions{})
	if err != nil {
		log.Fatal(err)
	}
	defer p.Close()
	if err := p.TryPublish(1, []byte("2 apples")); errors.Is(err, ring.ErrFull) {
		fmt.Println("a consumer is behind")
	} else if err != nil {
		log.Fatal(err)
	}
}

func ExampleProducer_PublishBatch() {
	ctx := context.Background()
	p, err := ring.NewProducer(ctx, "/ticks", ring.ProducerOptions{})
	if err != nil {
		log.Fatal(err)
	}
	defer p.Close()
	n, err := p.PublishBatch(ctx, []ring.Message{
		{Type: 1, Payload: []byte("first")},
		{Type: 1, Payload: []byte("second")},
	})
	if err != nil {
		log.Fatalf("only %d were published: %v", n, err)
	}
}

func ExampleConsumer_Messages() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := ring.NewConsumer(ctx, "/ticks", ring.ConsumerOptions{From: ring.Oldest, Types: []int64{1, 2}})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	for m, err := range c.Messages(ctx) {
		if err != nil {
			log.Print(err) // after ErrEvicted and ErrCorrupt it goes on, after others the loop ends
			continue
		}
		if m.Lost > 0 {
			fmt.Printf("%d messages of lane %d were overwritten before they were read\n", m.Lost, m.Lane)
		}
		fmt.Printf("%d: %s\n", m.Sequence, m.Payload)
	}
}

func ExampleConsumer_NextBatch() {
	ctx := context.Background()
	c, err := ring.NewConsumer(ctx, "/ticks", ring.ConsumerOptions{})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	batch := make([]ring.Message, 256)
	for {
		n, err := c.NextBatch(ctx, batch)
		if err != nil {
			log.Fatal(err)
		}
		for _, m := range batch[:n] {
			fmt.Printf("%s\n", m.Payload) // valid until the next call
		}
	}
}

// What is computed from a view counts only if the view is still valid afterwards.
func ExampleConsumer_View() {
	ctx := context.Background()
	c, err := ring.NewConsumer(ctx, "/frames", ring.ConsumerOptions{})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	v, err := c.View(ctx)
	if err != nil {
		log.Fatal(err)
	}
	sum := 0
	for _, b := range v.Payload {
		sum += int(b)
	}
	if v.Valid() {
		fmt.Println(sum)
	}
}

func ExampleConsumerOptions_lossless() {
	ctx := context.Background()
	c, err := ring.NewConsumer(ctx, "/orders", ring.ConsumerOptions{From: ring.Sequence(1000), Lossless: true})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	m, err := c.Next(ctx)
	switch {
	case errors.Is(err, ring.ErrEvicted):
		fmt.Println("too slow: from now on messages may be lost")
	case err != nil:
		log.Fatal(err)
	default:
		fmt.Printf("%s\n", m.Payload)
	}
}
