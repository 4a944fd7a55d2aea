// Package ring is the Go SDK for the shared-memory rings of ipcd. It runs on Linux.
//
// A ring is a named log in memory. Every consumer sees every message. Producers and consumers share the
// memory, so a message costs tens of nanoseconds and no system call. The daemon makes rings and says who
// may join; messages do not pass through it. Rings are made with ipcctl ring create or client.CreateRing.
//
//	p, err := ring.NewProducer(ctx, "/ticks", ring.ProducerOptions{})
//	err = p.Publish(7, []byte("hello"))
//
//	c, err := ring.NewConsumer(ctx, "/ticks", ring.ConsumerOptions{From: ring.Oldest})
//	m, err := c.Next(ctx)
//
// # Lanes
//
// Each producer writes a lane of its own, and a consumer reads all lanes. Messages of one lane come in
// the order in which they were published, with sequences 1, 2, 3 and so on. Between lanes there is no
// order. The ring's capacity is that of each lane. The lane of a producer that left can still be read,
// until the ring keeps too much of that kind.
//
// # Loss
//
// The ring decides what happens when a consumer is slow. With the policy overwrite, producers never wait:
// they overwrite what is oldest, and a consumer that was overtaken learns how much it lost from
// Message.Lost. With the policy lossless, producers wait for those consumers that asked for it with
// ConsumerOptions.Lossless, and such a consumer loses nothing. One that holds a producer up for too long
// (the ring's stall time) is evicted: it gets ErrEvicted once, and goes on in that lane as with overwrite.
// The protection of a consumer begins a moment after it attached; what comes before moves its start.
//
// # When the daemon restarts
//
// Members go on while the daemon is away. Only joining has to wait. Each handle connects again on its
// own and hands its memory back to the new daemon, so positions stay and nothing is lost. A handle
// closes by itself when the daemon says that this cannot be, as when the ring was deleted or access was
// withdrawn. Every later call then returns that error; a consumer hands out what it has copied before.
//
// # Goroutines
//
// A handle is for one goroutine at a time, except that Close and Stats may be called at any time, also
// while another call waits. A second call at the same time is ErrInvalidArgument. Make a handle per
// goroutine instead: each is a lane, or a consumer, of its own.
//
// # Errors
//
// Errors can be told apart with errors.Is and the sentinels of this package, such as ErrDeleted;
// errors.As with *Error gives the particulars.
package ring
