package doors

import (
	"os"
	"strings"
	"testing"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/transport/posixmq/lanetest"
)

func TestModeAndOwner_S28(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a kernel queue away")
	}
	w, name := newWorld(t), newName()
	s := spec(name, queue.KernelBoth, roomy())
	s.OwnerUID, s.GroupGID, s.Mode = 12345, 23456, 0o764
	door := w.open(s)
	for i, mode := range []uint32{0o220, 0o444} {
		st := door.Status()[i]
		if st.UID != 12345 || st.GID != 23456 || st.Mode != mode || st.Problem != "" {
			t.Errorf("%+v, want mode %04o", st, mode)
		}
	}
	s = spec(newName(), queue.KernelBoth, roomy())
	s.Mode = 0o662 // the daemon's own queue: it keeps its own bits
	door = w.open(s)
	for i, mode := range []uint32{0o622, 0o640} {
		if st := door.Status()[i]; st.Mode != mode || st.Problem != "" {
			t.Errorf("%+v, want mode %04o", st, mode)
		}
	}
	if err := object(t, s.Queue).Chmod(0o666); err != nil {
		t.Fatal(err)
	}
	if p := door.Status()[0].Problem; !strings.Contains(p, "0666") {
		t.Errorf("a changed mode is not shown: %q", p)
	}
}

// C programs of other users: the kernel decides.
func TestKernelDecidesAccess_S28(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can run programs as somebody else")
	}
	dir := programs(t)
	w, name, lane := newWorld(t), newName(), roomy()
	s := spec(name, queue.KernelBoth, lane)
	s.OwnerUID, s.GroupGID, s.Mode = 12345, 23456, 0o620 // the owner sends and receives, the group sends
	w.open(s).Start()
	lane.Put(queue.Message{Type: 2, Body: []byte("for you")})
	lane.AwaitCount(t, lanetest.Leased, 1)
	for _, c := range []struct {
		uid, gid uint32
		args     []string
		want     string
	}{
		{12345, 1, []string{"mqsend", name}, sent},
		{12346, 23456, []string{"mqsend", name}, sent},
		{12346, 1, []string{"mqsend", name}, refused},
		{12345, 1, []string{"mqreceive", name, "1"}, refused},
		{12345, 1, []string{"mqsend", name + ".out"}, refused},
		{12346, 23456, []string{"mqreceive", name + ".out", "1"}, refused},
		{12345, 1, []string{"mqreceive", name + ".out", "1"}, "0 7 for you"},
	} {
		if got := native(dir, c.uid, c.gid, c.args...); got != c.want {
			t.Errorf("uid %d, gid %d, %v: %q, want %q", c.uid, c.gid, c.args, got, c.want)
		}
	}
	lane.AwaitCount(t, lanetest.Consumed, 1)
}

// While owner, group and mode change nobody has what he has neither before nor after, but for the owners.
func TestNobodyGainsAmidAChange_S28(t *testing.T) {
	const daemon, bits = 1, 0o222
	var all []permissions
	for uid := uint32(daemon); uid <= 3; uid++ {
		for gid := uint32(1); gid <= 2; gid++ {
			for mode := range uint32(0o400) {
				if mode&^bits == 0 {
					all = append(all, permissions{uid, gid, mode})
				}
			}
		}
	}
	type user struct {
		uid    uint32
		groups [3]bool
	}
	may := func(u user, p permissions) bool {
		switch {
		case u.uid == p.uid:
			return p.mode&0o200 != 0
		case u.groups[p.gid]:
			return p.mode&0o020 != 0
		default:
			return p.mode&0o002 != 0
		}
	}
	var users []user
	for uid := uint32(daemon + 1); uid <= 4; uid++ {
		for i := range 4 {
			users = append(users, user{uid, [3]bool{1: i&1 != 0, 2: i&2 != 0}})
		}
	}
	for _, from := range all {
		for _, to := range all {
			if to.uid == daemon {
				to.mode |= 0o600
			}
			path := steps(from, to, daemon)
			if from != to && path[len(path)-1] != to {
				t.Fatalf("%v to %v ends in %v", from, to, path)
			}
			before := from
			for _, at := range path {
				changed := 0
				for _, differs := range []bool{at.uid != before.uid, at.gid != before.gid, at.mode != before.mode} {
					if differs {
						changed++
					}
				}
				// A mode is its owner's to change, who must be the daemon then.
				if changed != 1 || at.mode != before.mode && before.uid != daemon {
					t.Fatalf("%v to %v: %v follows %v", from, to, at, before)
				}
				before = at
				for _, u := range users {
					if may(u, at) && !may(u, from) && !may(u, to) && u.uid != from.uid && u.uid != to.uid {
						t.Fatalf("%v to %v: at %v %v may", from, to, at, u)
					}
				}
			}
		}
	}
}

// Root's daemon changes what it gave away, and takes no part in it.
func TestRootChangesWhatItGaveAway_S28(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a kernel queue away")
	}
	w, lane := newWorld(t), lanetest.New(1, 32, 32)
	s := spec(newName(), queue.KernelIn, lane)
	s.OwnerUID, s.GroupGID, s.Mode = aliceUID, aliceUID, 0o600
	door := w.open(s)
	door.Protect(0o622, bobUID, jobsGID)
	checkNoProblem(t, door.Status()...)
	checkObject(t, s.Queue, bobUID, jobsGID, 0o222)
	w.exists = always
	w.restart()
	checkNoProblem(t, w.open(s).Status()...)
	checkObject(t, s.Queue, aliceUID, aliceUID, 0o200)
}

// Without CAP_CHOWN, as in a daemon of an ordinary user, the daemon stays the owner and says why.
func TestWithoutCapabilityNothingIsGivenAway_S28(t *testing.T) {
	newWorld(t)
	name := newName()
	mq := foreign(t, name)
	s := spec(name, queue.KernelIn, nil)
	now, problem := powers{}.protect(mq, in, s)
	if want := (permissions{s.OwnerUID, s.GroupGID, 0o600}); now != want || problem != "" {
		t.Errorf("its own: %v, %q", now, problem)
	}
	s.OwnerUID, s.Mode = aliceUID, 0o622
	now, problem = powers{}.protect(mq, in, s)
	if want := (permissions{uint32(os.Geteuid()), s.GroupGID, 0o622}); now != want || !strings.Contains(problem, "CAP_CHOWN") {
		t.Errorf("alice's: %v, %q", now, problem)
	}
}
