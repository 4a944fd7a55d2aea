// Command ipcctl is the operator's view of ipcd: it lists, makes and changes queues and rings, sends, receives
// and settles messages, publishes and subscribes, and looks at all of it without disturbing anything.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	// A reader of our output that went away shows as EPIPE, so that what it did not get can be given back.
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the second signal ends the process at once
	os.Exit(run(ctx, os.Args[1:], processStreams()))
}
