// Grpcsend sends each line of its input to a queue of ipcd, over gRPC. A line is TYPE, a tab, and the
// text. Sends are pipelined: they go out in batches, and Close waits until all are acknowledged.
//
// Usage: grpcsend /QUEUE < LINES. The daemon is the one that IPCD_ADDRESS names.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"

	"github.com/ipcd/ipcd/client"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: grpcsend /QUEUE < LINES")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	sent, err := sendLines(ctx, os.Args[1], os.Stdin)
	if err != nil {
		fmt.Fprintln(os.Stderr, "grpcsend:", err)
		os.Exit(1)
	}
	fmt.Println(sent)
}

// sendLines sends what it reads and returns how many lines the daemon acknowledged: all, or an error.
func sendLines(ctx context.Context, queue string, lines io.Reader) (sent int, err error) {
	c, err := client.Dial("")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	sender, err := c.Queue(queue).Sender(ctx, client.SenderOptions{})
	if err != nil {
		return 0, err
	}
	scanner := bufio.NewScanner(lines)
	for scanner.Scan() {
		number, text, _ := strings.Cut(scanner.Text(), "\t")
		kind, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			return 0, errors.Join(fmt.Errorf("line %d does not begin with a type and a tab", sent+1), sender.Close())
		}
		if _, err := sender.Send(ctx, client.Message{Type: kind, Body: []byte(text)}); err != nil {
			return 0, errors.Join(err, sender.Close())
		}
		sent++
	}
	return sent, errors.Join(scanner.Err(), sender.Close())
}
