// Hello sends two messages to the queue /orders, takes one by its type, and acks it.
package main

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/ipcd/ipcd/client"
)

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()

	c, err := client.Dial("") // the daemon at IPCD_ADDRESS, else the local one
	if err != nil {
		return err
	}
	defer c.Close()

	orders := c.Queue("/orders")
	if _, err := orders.Send(ctx, // all or nothing
		client.Message{Type: 1, Body: []byte("a book")},
		client.Message{Type: 2, Body: []byte("a lamp")},
	); err != nil {
		return err
	}

	deliveries, err := orders.Receive(ctx, 10, client.ReceiveOptions{Selector: client.Type(2)})
	if err != nil {
		return err
	}
	for _, d := range deliveries {
		fmt.Printf("message %d: %s\n", d.Sequence, d.Body)
		if err := d.Ack(ctx); err != nil { // else it comes again when its lease ends
			return err
		}
	}
	return nil
}
