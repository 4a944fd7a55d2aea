package shmring

import (
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/sys/unix"

	"github.com/ipcd/ipcd/internal/attach"
	"github.com/ipcd/ipcd/internal/reason"
)

func TestGotForWhatWasNotReceivedIsNoticed(t *testing.T) {
	s, rings, path := start(t, func(s *Server) { s.times.got = 10 * time.Millisecond })
	c := dial(t, path)
	c.send(attach.Attach{Role: attach.Producer, Name: "/ring"})
	c.send(attach.Got{})
	rings.await(func() bool { return rings.last == 1 && rings.joining == 0 }) // dropped
	// Its descriptor is still on the way, and counted.
	s.charges.mu.Lock()
	files := s.charges.uids[uint32(os.Getuid())].files
	s.charges.mu.Unlock()
	if files != 1 {
		t.Errorf("%d descriptors are on the way", files)
	}
	expect[attach.Memory](c)
	if e := c.refused(reason.InvalidArgument); !strings.Contains(e.Text, "not received") {
		t.Errorf("%+v", e)
	}
	settle(t, s) // although this end is still open
}

// waiting returns how many connections of this process wait for descriptors.
func waiting(s *Server) int {
	s.charges.mu.Lock()
	defer s.charges.mu.Unlock()
	return len(s.charges.uids[uint32(os.Getuid())].queue)
}

func TestDescriptorsOnTheWayAreLimited(t *testing.T) {
	s, rings, path := start(t, func(s *Server) { s.charges.filesPerUID = 2 })
	hoards := dial(t, path)
	hoards.send(attach.Attach{Role: attach.Producer, Name: "/ring"})
	expect[attach.Memory](hoards)
	hoards.send(attach.Got{})
	hoards.send(attach.Ready{})
	rings.await(func() bool { return len(rings.members) == 1 }) // ATTACHED has both descriptors

	// Two wait. The first of them gives up, which is noticed although it has to wait.
	first := dial(t, path)
	first.send(attach.Attach{Role: attach.Producer, Name: "/ring"})
	rings.await(func() bool { return rings.joining == 1 })
	second := dial(t, path)
	second.send(attach.Attach{Role: attach.Consumer, Name: "/ring"})
	rings.await(func() bool { return rings.joining == 2 })
	first.sock.Close()
	rings.await(func() bool { return rings.joining == 1 })
	if !look(func() bool { return waiting(s) == 1 }) {
		t.Fatalf("%d wait for descriptors, want the second alone", waiting(s))
	}
	// It stays in the queue until hoards has taken what is its own: nothing can have come.
	if n, _, err := unix.Recvfrom(int(fileOf(t, second)), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT); err != unix.EAGAIN {
		t.Errorf("beyond the limit came a packet: %d, %v", n, err)
	}
	expect[attach.Attached](hoards)
	hoards.send(attach.Got{})
	expect[attach.Memory](second)
}

// Dropped for not taking its descriptors, a peer keeps them on the way for as long as it keeps its end open.
func TestDescriptorsOfADroppedPeerStayCounted(t *testing.T) {
	s, rings, path := start(t, func(s *Server) {
		s.times.got = 10 * time.Millisecond
		s.charges.filesPerUID = 1
	})
	hoards := dial(t, path)
	hoards.send(attach.Attach{Role: attach.Producer, Name: "/ring"})
	rings.await(func() bool { return rings.last == 1 && rings.joining == 0 }) // dropped
	waits := dial(t, path)
	waits.send(attach.Attach{Role: attach.Producer, Name: "/ring"})
	rings.await(func() bool { return rings.joining == 1 })
	s.charges.mu.Lock()
	u := s.charges.uids[uint32(os.Getuid())]
	if u.files != 1 {
		t.Errorf("%d descriptors are counted", u.files)
	}
	s.charges.mu.Unlock()
	hoards.sock.Close()
	if p, files := waits.receive(); p.Kind() != attach.KindMemory || len(files) != 1 {
		t.Errorf("%+v", p)
	}
}

func TestConnectionsAreLimited(t *testing.T) {
	for what, change := range map[string]func(*Server){
		"in all":  func(s *Server) { s.charges.conns = 10 },
		"per uid": func(s *Server) { s.charges.connsPerUID = 10 },
	} {
		s, rings, path := start(t, change)
		var first []client
		for range 10 {
			c := dial(t, path)
			c.join(attach.Consumer)
			first = append(first, c)
		}
		for range 100 {
			if e := dial(t, path).refused(reason.QuotaExceeded); e.Status != uint32(unix.EDQUOT) || !strings.Contains(e.Text, "10 connections") {
				t.Errorf("%s: %+v", what, e)
			}
		}
		for _, c := range first {
			c.sock.Close()
		}
		rings.awaitNobody()
		settle(t, s)
		dial(t, path).join(attach.Producer)
	}
}

func TestAFloodOfConnectionsPasses(t *testing.T) {
	s, rings, path := start(t, nil)
	honest := dial(t, path)
	honest.join(attach.Producer)
	for range 3000 {
		dialQuick(t, path).sock.Close()
	}
	honest.pull()
	honest.sock.Close()
	rings.awaitNobody()
	settle(t, s)
	dial(t, path).join(attach.Producer)
}

// Without descriptors left the server waits, and goes on when there are some again.
func TestRunningOutOfDescriptorsPasses(t *testing.T) {
	logger, logged := observer.New(zap.WarnLevel)
	rings := newFakeRings(t)
	path := serveOn(t, New(Options{Rings: rings, Logger: zap.New(logger)}), nil)
	c := dial(t, path)
	c.join(attach.Producer)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	socket, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(socket)
	// Descriptors are given the lowest free number: a limit right above the last leaves none.
	low := limit
	low.Cur = uint64(socket) + 1
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	connected := unix.Connect(socket, &unix.SockaddrUnix{Name: path})
	tried := look(func() bool { return logged.Len() > 0 })
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || connected != nil {
		t.Fatal(err, connected)
	}
	if !tried {
		t.Error("there was a descriptor left")
	}
	dial(t, path).join(attach.Consumer)
	c.pull()
}
