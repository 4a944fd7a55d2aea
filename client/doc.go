// Package client is the Go SDK of ipcd: it sends typed messages to the queues of a daemon, receives
// and consumes them, looks at them, and manages queues. It also publishes to rings and subscribes to them;
// programs on the daemon's host reach rings much faster with package client/ring.
//
//	c, err := client.Dial("")        // the daemon on this host
//	q := c.Queue("/jobs")            // no I/O
//	sent, err := q.Send(ctx, client.Message{Type: 7, Body: []byte("hello")})
//	err = q.Consume(ctx, handle, client.ConsumeOptions{Concurrency: 4})
//
//	err = c.Transact(ctx, moveOn)    // sends and acks over any queues, all or none
//
//	reply, err := c.Request(ctx, "/jobs", client.Message{Body: []byte("ping")}) // q.Respond answers
//	err = c.ConsumeAny(ctx, []string{"/urgent", "/jobs"}, handle, client.ConsumeOptions{})
//	_, err = q.Bind(ctx, "/audit", client.BindOptions{}) // a copy of all that is sent goes there
//	for m, err := range q.Tap(ctx, client.TapOptions{}) {} // copies of what arrives
//
//	p, err := c.Ring("/ticks").Publisher(ctx)
//	published, err := p.Publish(ctx, client.RingMessage{Type: 7, Payload: tick})
//	for d, err := range c.Ring("/ticks").Subscribe(ctx, client.RingSubscribeOptions{}) {}
//
//	c, err = client.Dial("ipcd.example.org:7475", client.WithTLS(client.TLS{CertFile: cert, KeyFile: key, CAFile: ca}))
//
// What a call acknowledged survives a crash, unless the queue was declared DurabilityMemory. What is in a ring
// is in memory alone.
//
// Everything is safe for concurrent use. Errors can be told apart with errors.Is and the sentinels of
// this package, such as ErrQueueFull; errors.As with *Error gives the particulars.
//
// A connection that breaks is made again. What was in flight is sent again only under the producer id
// and batch id under which the daemon stores it once; where that cannot be, ErrOutcomeUnknown says so.
package client
