// Package doors opens and closes the kernel doors of queues over the packages that know each mechanism,
// of which posixmq is the first. It implements broker.Doors.
//
// It alone decides what is ours. A kernel queue is made with O_EXCL and recorded by name, inode and
// boot id, in a file of the state directory; a name that is not so recorded is never read, changed or
// unlinked. The life of a record:
//
//	(none) --intent: name and mark, synced--> intent --mq_open(O_EXCL), mark, inode, synced--> ours --unlink--> (none)
//	            intent --mq_open fails--> (none)
//
// After a crash an object is ours if its inode is the recorded one, in the same boot. If the crash came
// after mq_open and before the inode was synced, the mark tells: a random modification time that is
// set right after mq_open, and stays until a first message is sent, which before the inode is synced
// nobody but the daemon's user may do. A crash between those two system calls leaves an object of
// which nobody can say whose it is. It is left alone, and the log says so.
//
// A kernel queue of ours is given to the owner of its queue, with bits that need not let the daemon in. As the
// object's owner alone may change its mode and unlink it, a daemon that is not root takes it back first,
// by CAP_CHOWN, and to open it after a restart, too. What it could not take back it does not give away.
package doors
