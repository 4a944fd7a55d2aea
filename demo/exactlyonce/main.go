// Exactlyonce writes an invoice into /invoices for every order in /orders, exactly one, whatever crashes
// meanwhile: itself, another copy of it, or the daemon. That the order is done and that its invoice is there is
// one transaction. It goes on until it is interrupted.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/ipcd/ipcd/client"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	c, err := client.Dial("") // the daemon at IPCD_ADDRESS, else the local one
	if err != nil {
		return err
	}
	defer c.Close()

	for ctx.Err() == nil {
		err := invoice(ctx, c)
		switch {
		case err == nil || ctx.Err() != nil:
		case passes(err):
			// What was not done comes again, now or when its lease ends; what was done does not.
			log.Print(err)
			time.Sleep(20 * time.Millisecond)
		default:
			return err
		}
	}
	return nil
}

// invoice takes a few orders, and writes their invoices in the transaction that acks them.
func invoice(ctx context.Context, c *client.Client) error {
	orders, err := c.Queue("/orders").Receive(ctx, 10, client.ReceiveOptions{Wait: time.Second})
	if err != nil || len(orders) == 0 {
		return err
	}
	return c.Transact(ctx, func(tx *client.Tx) error {
		for _, order := range orders {
			tx.Send("/invoices", client.Message{Body: fmt.Appendf(nil, "invoice for %s", order.Body)})
			tx.Ack(order)
		}
		return nil
	})
}

// passes reports whether an error is one that passes by itself: the daemon is away, or somebody else
// has the orders by now.
func passes(err error) bool {
	for _, p := range []error{
		client.ErrUnreachable, client.ErrUnhealthy, client.ErrShuttingDown,
		client.ErrOutcomeUnknown, client.ErrStaleReceipt, client.ErrQueueFull,
	} {
		if errors.Is(err, p) {
			return true
		}
	}
	return false
}
