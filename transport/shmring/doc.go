// Package shmring serves attach.sock, at which programs of this host become producers and consumers of
// shared-memory rings. It hands out descriptors and notices who is gone; who may do what, and what that
// means for the ring, is package broker/ring's. Messages never come this way.
//
// What is said on a connection is internal/attach's. How it goes on one, with what ends it:
//
//	connected --ATTACH--> joining --GOT, READY--> attached --GOT--> member --DETACH--> left
//	    |                    |                       |                |
//	    +------ADOPT---------|-----------------------+                +--MEMBERS, GOT--> member
//	    10 s                 5 s to GOT,             5 s              never; 5 s to GOT
//	                         60 s to READY
//
// Every ERROR is followed by a hang-up. A member is dead as soon as its connection is hung up or the
// process that opened it is gone: after a fork a child keeps the connection open, but not the pidfd.
//
// What strangers can use up is counted against their uid, and given back only when it is free in fact:
// connections, and descriptors on the way, which count until the kernel says that the peer has received
// them or is gone, whatever the peer says and also after it was dropped. A connection that is dropped
// therefore lingers where its last descriptors were not taken.
//
// When the daemon stops, members are left as they are: they go on without it and come back with ADOPT.
//
// Goroutines: accept, one for the listener, and three for each connection, all started in serve
// (server.go) and waited for in Stop.
//
//	handle  speaks the protocol and calls the broker; it owns all that the connection holds
//	read    reads packets and hands them to handle; it alone touches strangers' descriptors
//	watch   waits for the end of the peer's process
package shmring
