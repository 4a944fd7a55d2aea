// Package ops is the operators' door: metrics, health and profiles over HTTP.
//
// It asks for no identity. Who reaches the address sees the names and figures of all queues and rings, and where it is
// of this host (loopback, or a unix socket) profiles of the daemon too; nobody sees a message.
//
// A scrape goes like this: snapshot asks the broker and the rings once, as root (snapshot.go); tables turn what they
// answered into samples, of at most so many queues and rings (table.go, queues.go, rings.go); what is about the daemon
// itself is added (daemon.go, calls.go), and all of it is written down once (scrape.go). Whoever asks meanwhile
// gets the same text. docs/metrics.md is the contract, and a test holds it against what is served.
package ops
