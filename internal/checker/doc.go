// Package checker holds a queue to its promises. A test records what its clients attempted and what came
// of it; Check then says which promises that history breaks. It knows nothing of how messages travel, so
// that simulations and real processes share it.
//
// A history is full of doubt: an answer that never came, a delivery that is noted long after it was made.
// The checker calls a violation only what no order of events explains. What it must be able to rely on: an
// outcome is recorded after it was learnt; leases last longer than a receiver takes to record a
// delivery; Crashing is called before the broker is ended, Crashed when it is gone and before the next begins.
package checker
