// Package ring owns the rings: their names and definitions, who may use them, who writes, who reads and how far.
//
// A ring is a set of lanes in shared memory, each written by one producer and read by all consumers; package shm
// defines that memory. This package makes the memory, decides who gets which descriptor, and tells members about
// each other. It knows no sockets: the door at which members attach calls it, and so does gRPC, for which the daemon
// itself is a producer (Publish) and a consumer (Subscribe).
//
// # Lock order
//
// Rings.admin, then Rings.mu, then ring.mu, then budget.mu or Rings.lingerMu. Nothing that may take long happens under
// ring.mu: memory is made, unmapped, closed, stored and asked for its writers without it. memory.keeping is taken when none
// but Rings.admin is held: under it the service manager is told.
//
// # Goroutines
//
// Rings.watch and, after a restart, Rings.endWindow; both are started by Open and end in Close.
package ring
