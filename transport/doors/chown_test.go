package doors

import (
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/reason"
)

// The life of a kernel queue that a daemon with CAP_CHOWN alone has given to alice.
func TestOwnerUsesItsKernelQueueThoughTheDaemonIsNotRoot_S28(t *testing.T) {
	s, dir, name := newServant(t, true), programs(t), newName()
	checkNoProblem(t, s.open(name))
	checkObject(t, name, aliceUID, aliceUID, 0o200)
	checkSend(t, dir, aliceUID, 1, name, sent)
	checkSend(t, dir, bobUID, 1, name, refused)

	s.crash(name)
	checkNoProblem(t, s.open(name))
	checkSend(t, dir, aliceUID, 1, name, sent)
	checkSend(t, dir, bobUID, 1, name, refused)

	checkNoProblem(t, s.tell(order{Do: "protect", Name: name, Bits: 0o660, UID: aliceUID, GID: jobsGID}).Status...)
	checkObject(t, name, aliceUID, jobsGID, 0o220)
	checkSend(t, dir, bobUID, jobsGID, name, sent)
	checkSend(t, dir, bobUID, 1, name, refused)

	checkNoProblem(t, s.tell(order{Do: "protect", Name: name, Bits: 0o600, UID: bobUID, GID: jobsGID}).Status...)
	checkObject(t, name, bobUID, jobsGID, 0o200)
	checkSend(t, dir, bobUID, 1, name, sent)
	checkSend(t, dir, aliceUID, jobsGID, name, refused)

	checkNoProblem(t, s.tell(order{Do: "protect", Name: name, Bits: 0o600, UID: servantUID, GID: jobsGID}).Status...)
	checkObject(t, name, servantUID, jobsGID, 0o600)
	checkNoProblem(t, s.tell(order{Do: "protect", Name: name, Bits: 0o400, UID: aliceUID, GID: jobsGID}).Status...)
	checkObject(t, name, aliceUID, jobsGID, 0)

	s.crash(name) // no bits at all
	if a := s.open(name); a.UID != aliceUID || a.Problem != "" {
		t.Errorf("%+v", a)
	}
	checkSend(t, dir, aliceUID, 1, name, sent)
	s.tell(order{Do: "remove", Name: name})
	if !gone(name) {
		t.Error("the kernel queue is left")
	}
}

func TestReaderOfItsOutDoorNeedsNoRoot_S28(t *testing.T) {
	s, name := newServant(t, true), newName()
	for range 2 {
		a := s.tell(order{Do: "open", Name: name, Mode: queue.KernelOut, Bits: 0o640, UID: aliceUID, GID: jobsGID})
		if a.Error != "" {
			t.Fatal(a.Error)
		}
		checkNoProblem(t, a.Status...)
		checkObject(t, name+".out", aliceUID, jobsGID, 0o440)
		s.crash(name)
	}
	s.crash()
	if !gone(name + ".out") {
		t.Error("the kernel queue is left")
	}
}

// What waits in a kernel queue while the daemon is dead is taken over with it, and what has lost its queue goes.
func TestGivenAwayKernelQueueOutlivesTheDaemonWithItsMessages_S29(t *testing.T) {
	s, dir, kept, lost := newServant(t, true), programs(t), newName(), newName()
	s.open(kept)
	s.open(lost)
	s.kill()
	checkSend(t, dir, aliceUID, 1, kept, sent)
	s.start(kept)
	if !gone(lost) {
		t.Error("the kernel queue of a queue that is gone is left")
	}
	s.open(kept)
	eventually(t, "the message is taken", func() bool { return s.tell(order{Do: "status", Name: kept}).Status[0].Passed == 1 })
	s.tell(order{Do: "remove", Name: kept})
}

// The daemon dies between two steps: it owns the object, with bits or without.
func TestDeathAmidAChangeOfOwnerIsMended_S28(t *testing.T) {
	s, name := newServant(t, true), newName()
	for _, mode := range []uint32{0, 0o200, 0o600} {
		s.crash(name)
		s.open(name)
		s.kill()
		mq := object(t, name)
		if err := mq.Chmod(mode); err != nil {
			t.Fatal(err)
		}
		if err := mq.Chown(servantUID, -1); err != nil {
			t.Fatal(err)
		}
		s.start(name)
		checkNoProblem(t, s.open(name))
		checkObject(t, name, aliceUID, aliceUID, 0o200)
	}
	s.tell(order{Do: "remove", Name: name})
}

// Alice puts her own object in the place of the one that she was given.
func TestOwnersOwnObjectOfTheSameNameIsNeverTouched_S28(t *testing.T) {
	s, name := newServant(t, true), newName()
	s.open(name)
	s.kill()
	if ours, err := object(t, name).Unlink(); !ours || err != nil {
		t.Fatal(ours, err)
	}
	hers := foreign(t, name)
	if err := hers.Chown(aliceUID, aliceUID); err != nil {
		t.Fatal(err)
	}
	s.start(name)
	if a := s.tell(order{Do: "open", Name: name, Mode: queue.KernelIn, Bits: 0o600, UID: aliceUID, GID: aliceUID}); a.Reason != reason.KernelNameTaken {
		t.Errorf("%+v", a)
	}
	s.crash() // and the queue is gone
	checkUntouched(t, hers)
	checkObject(t, name, aliceUID, aliceUID, 0o600)
}

// The same while the daemon runs: neither its removal nor a change of owner reaches what stands there now.
func TestReplacedKernelQueueIsNotRemoved_S28(t *testing.T) {
	s, name := newServant(t, true), newName()
	s.open(name)
	if ours, err := object(t, name).Unlink(); !ours || err != nil {
		t.Fatal(ours, err)
	}
	hers := foreign(t, name)
	if err := hers.Chown(aliceUID, aliceUID); err != nil {
		t.Fatal(err)
	}
	s.tell(order{Do: "protect", Name: name, Bits: 0o666, UID: bobUID, GID: jobsGID})
	s.tell(order{Do: "remove", Name: name})
	checkUntouched(t, hers)
	checkObject(t, name, aliceUID, aliceUID, 0o600)
}

// Nothing is given away that could not be taken back: without the mount the daemon stays the owner, and the group may.
func TestWithoutTheMountTheDaemonStaysTheOwner_S28(t *testing.T) {
	s, dir, name := newServant(t, false), programs(t), newName()
	for range 2 {
		a := s.tell(order{Do: "open", Name: name, Mode: queue.KernelIn, Bits: 0o660, UID: aliceUID, GID: jobsGID})
		if a.Error != "" {
			t.Fatal(a.Error)
		}
		if st := a.Status[0]; !st.Open || !strings.Contains(st.Problem, "not mounted on /dev/mqueue") || !strings.Contains(st.Problem, "uid 54321") {
			t.Errorf("%+v", st)
		}
		checkObject(t, name, servantUID, jobsGID, 0o620)
		checkSend(t, dir, bobUID, jobsGID, name, sent)
		checkSend(t, dir, aliceUID, 1, name, refused)
		s.crash(name)
	}
	// What was given away while it was mounted is neither touched nor replaced.
	if err := object(t, name).Chown(aliceUID, -1); err != nil {
		t.Fatal(err)
	}
	a := s.tell(order{Do: "open", Name: name, Mode: queue.KernelIn, Bits: 0o660, UID: aliceUID, GID: jobsGID})
	if a.Reason != reason.KernelNameTaken || !strings.Contains(a.Error, "not mounted") {
		t.Errorf("%+v", a)
	}
	s.crash()
	checkObject(t, name, aliceUID, jobsGID, 0o620)
	s.mounted = true
	s.crash()
	if !gone(name) {
		t.Error("the kernel queue is left")
	}
}

// An ordinary user's daemon may do nothing of the kind; a container's root believes that it may, and is refused.
func TestWhoMayNotGiveStaysTheOwnerAndNoGroupMay_S28(t *testing.T) {
	for what, as := range map[string]*syscall.SysProcAttr{
		"the daemon has no CAP_CHOWN": {Credential: &syscall.Credential{Uid: servantUID, Gid: servantUID}},
		"invalid argument": {
			Cloneflags:  unix.CLONE_NEWUSER,
			Credential:  &syscall.Credential{},
			UidMappings: []syscall.SysProcIDMap{{HostID: servantUID, Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{HostID: servantUID, Size: 1}},
		},
	} {
		t.Run(what, func(t *testing.T) {
			s, name := newServantAs(t, true, as), newName()
			for range 2 {
				a := s.tell(order{Do: "open", Name: name, Mode: queue.KernelIn, Bits: 0o660, UID: aliceUID, GID: jobsGID})
				if a.Error != "" {
					t.Fatal(a.Error)
				}
				if st := a.Status[0]; !st.Open || !strings.Contains(st.Problem, "uid 54321: "+what) || !strings.Contains(st.Problem, "group 54330") {
					t.Errorf("%+v", st)
				}
				checkObject(t, name, servantUID, servantUID, 0o600)
				s.crash(name)
			}
			s.crash()
			if !gone(name) {
				t.Error("the kernel queue is left")
			}
		})
	}
}
