package doors

import (
	"fmt"
	"os"

	"github.com/ipcd/ipcd/broker"
	"github.com/ipcd/ipcd/transport/posixmq"
)

// permissions are who may do what with a kernel queue.
type permissions struct {
	uid, gid, mode uint32
}

func (p permissions) String() string {
	return fmt.Sprintf("uid %d, gid %d, mode %04o", p.uid, p.gid, p.mode)
}

// protect gives a kernel queue the queue's owner and group, and the bits of its mode that make sense:
// write for in, read for out. The daemon keeps its own bits where it stays the owner, as it must
// open the object again after a crash. Only root gives an object away: anybody else could then no
// longer unlink it. problem says what could not be done.
func protect(mq *posixmq.MQ, w way, spec broker.DoorSpec) (now permissions, problem string) {
	note := func(err error, format string, args ...any) {
		if err != nil {
			problem = join(problem, fmt.Sprintf(format, args...)+": "+err.Error())
		}
	}
	st, err := mq.Stat()
	if err != nil {
		return now, err.Error()
	}
	daemon := uint32(os.Geteuid())
	mode := spec.Mode & 0o222
	if w == out {
		mode = spec.Mode & 0o444
	}
	if st.GID != spec.GroupGID {
		if err := mq.Chown(-1, int(spec.GroupGID)); err != nil {
			mode &^= 0o070 // they would be another group's
			note(err, "the daemon may not give it to group %d, and no group may use it", spec.GroupGID)
		}
	}
	switch {
	case st.UID == spec.OwnerUID:
	case daemon == 0:
		// Without bits while it changes hands: the new owner is not to have the daemon's.
		note(mq.Chmod(0), "its mode could not be set")
		note(mq.Chown(int(spec.OwnerUID), -1), "it could not be given to uid %d", spec.OwnerUID)
	default:
		note(fmt.Errorf("only root can"), "it could not be given to uid %d", spec.OwnerUID)
	}
	if st, err = mq.Stat(); err == nil && st.UID == daemon {
		mode |= 0o600
	}
	note(err, "its owner could not be read")
	note(mq.Chmod(mode), "its mode could not be set")
	st, err = mq.Stat()
	note(err, "its mode could not be read")
	return permissions{st.UID, st.GID, st.Mode}, problem
}
