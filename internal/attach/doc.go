// Package attach is the protocol of attach.sock, by which programs attach to shared-memory rings: what
// its packets look like, and how they are sent and received with their descriptors. The daemon
// (transport/shmring) and the Go client (client/ring) both speak it through this package.
//
// One packet of the seqpacket socket is one message, little endian, of fixed layout, and at most
// MaxPacket bytes long. It begins with kind u16, version u16 and size u32 of the whole packet. A change
// of any layout raises Version; both sides refuse versions that they do not know.
//
// A member's life, with the number of descriptors that travel along:
//
//	client   Attach            Got Ready              Got Pull            Got ...  Detach
//	daemon          Memory (1)           Attached (2)          Members (n)                 Detached
//
// After the daemon was restarted, Adopt (1), Adopted (1) and Got stand for all that comes before the
// first Pull. Every request but Got has one reply, in order: the one shown or ErrorReply. Got follows
// every reply that carried descriptors, and the daemon sends nothing further before it.
package attach
