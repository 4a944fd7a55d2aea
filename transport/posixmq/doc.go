// Package posixmq is the door through which native programs reach a queue with nothing but
// mq_open(3), mq_send(3) and mq_receive(3).
//
//	native sender --mq_send--> [kernel queue /jobs]     --Inlet-->  broker.DoorQueue
//	native reader <-mq_receive- [kernel queue /jobs.out] <-Outlet--  broker.DoorQueue
//
// A kernel queue is a door, never the store. An Inlet takes a message only after room was reserved for
// it, so that a full queue makes the native sender wait. An Outlet keeps a lease on everything that it
// has put into its kernel queue, and settles it as consumed when it has left.
//
// MQ is the kernel's object itself, made, found and removed by transport/doors, which also knows which
// of them are ours.
package posixmq
