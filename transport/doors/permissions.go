package doors

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

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

// powers are what the daemon may do with kernel queues that belong to others, capabilities(7).
type powers struct {
	// give, by CAP_CHOWN: it may give its kernel queues away. What is an owner's alone (to change the mode, to
	// open without bits, to unlink in a sticky directory) it then does after taking them back.
	give bool
	// open, by CAP_DAC_OVERRIDE: it may open what belongs to others, and need not find it by path for that.
	open bool
}

// readPowers asks the kernel what the process may do. It answers for as long as the process lives.
func readPowers() powers {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&header, &sets[0]); err != nil { // a sandbox forbids to ask
		root := os.Geteuid() == 0
		return powers{give: root, open: root}
	}
	has := func(capability uint) bool { return sets[0].Effective&(1<<capability) != 0 }
	return powers{give: has(unix.CAP_CHOWN), open: has(unix.CAP_DAC_OVERRIDE)}
}

// mayGive returns why the daemon must not give a kernel queue away: it has to be able to open it again
// after a crash.
func (p powers) mayGive(mq *posixmq.MQ) error {
	switch {
	case !p.give:
		return errors.New("the daemon has no CAP_CHOWN")
	case p.open:
		return nil
	default:
		return mq.CanTakeBack()
	}
}

// steps are the states of a kernel queue, one system call apart, on its way from one owner, group and mode to
// others. The daemon takes it back, narrows it to the bits that it has and will have, gives it to the
// group, sets the mode, and gives it to the owner last: so nobody has in between what he has neither
// before nor after, but for its owners, who could have it if they wanted.
func steps(from, to permissions, daemon uint32) []permissions {
	var all []permissions
	at := from
	step := func(next permissions) {
		if next != at {
			all = append(all, next)
			at = next
		}
	}
	if from == to {
		return nil
	}
	step(permissions{daemon, from.gid, from.mode})
	narrow := from.mode&to.mode&^0o700 | 0o600
	step(permissions{daemon, from.gid, narrow})
	step(permissions{daemon, to.gid, narrow})
	step(permissions{daemon, to.gid, to.mode})
	step(to)
	return all
}

// protect gives a kernel queue the queue's owner and group, and the bits of its mode that make sense:
// write for in, read for out. Where the daemon stays the owner it keeps bits of its own, as it must open
// the object again after a crash. problem says what could not be done.
func (p powers) protect(mq *posixmq.MQ, w way, spec broker.DoorSpec) (now permissions, problem string) {
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
	now = permissions{st.UID, st.GID, st.Mode}
	want := permissions{spec.OwnerUID, spec.GroupGID, spec.Mode & w.bits()}
	keep := func(err error) {
		note(err, "it could not be given to uid %d", want.uid)
		want.uid = daemon
	}
	if want.uid != daemon && want.uid != now.uid {
		if err := p.mayGive(mq); err != nil {
			keep(err)
		}
	}
	if want.uid == daemon {
		want.mode |= 0o600
	}
	for todo := steps(now, want, daemon); len(todo) > 0; {
		next := todo[0]
		todo = todo[1:]
		var err error
		switch {
		case next.mode != now.mode:
			if err = mq.Chmod(next.mode); err != nil {
				note(err, "its mode could not be set to %04o", next.mode)
				todo = nil
			}
		case next.gid != now.gid:
			if err = mq.Chown(-1, int(next.gid)); err != nil {
				note(err, "the daemon may not give it to group %d, and no group may use it", next.gid)
				want.gid, want.mode = now.gid, want.mode&^0o070
				todo = steps(now, want, daemon)
			}
		case next.uid == daemon:
			if err = mq.Chown(int(daemon), -1); err != nil {
				note(err, "it could not be taken back from uid %d", now.uid)
				todo = nil
			}
		default:
			if err = mq.Chown(int(next.uid), -1); err != nil {
				keep(err)
				want.mode |= 0o600
				todo = steps(now, want, daemon)
			}
		}
		if err == nil {
			now = next
		}
	}
	st, err = mq.Stat()
	note(err, "its mode could not be read")
	return permissions{st.UID, st.GID, st.Mode}, problem
}

// reopen opens a recorded kernel queue by posixmq.Open or Inspect, taking it back first if need be. What
// it opens may still be a stranger's.
func (p powers) reopen(o record, open func(name string) (*posixmq.MQ, error)) (*posixmq.MQ, error) {
	mq, err := open(o.Name)
	if err != unix.EACCES || !p.give {
		return mq, err
	}
	// An intent has no inode, and nothing is taken back: what it made was not given away yet.
	if err := posixmq.TakeBack(o.Name, o.Inode); err != nil {
		return nil, err
	}
	return open(o.Name)
}

// unlink removes a kernel queue of ours, see posixmq.MQ.Unlink. It is taken back first: only an owner
// may unlink, and once it is the daemon's nobody can put another in its place.
func (p powers) unlink(mq *posixmq.MQ) (ours bool, err error) {
	if p.give {
		if err := mq.Chown(os.Geteuid(), -1); err != nil {
			return false, fmt.Errorf("take back: %w", err)
		}
	}
	return mq.Unlink()
}
