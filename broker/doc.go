// Package broker owns the queues: their names, who may use them, who waits for what, and what their
// kernel doors may do. Doors call it on behalf of an identity.
package broker
