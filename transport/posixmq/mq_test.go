package posixmq

import (
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestMessagesLeaveByPriorityThenAge(t *testing.T) {
	m := newMQ(t, 4, 16)
	for _, s := range []struct {
		body     string
		priority uint16
	}{{"a", 1}, {"", 32767}, {"b", 1}, {"0123456789abcdef", 0}} {
		if err := m.Send([]byte(s.body), s.priority); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Send(nil, 0); err != unix.EAGAIN {
		t.Fatalf("a fifth message of four: %v, want EAGAIN", err)
	}
	buffer := make([]byte, 16)
	for _, want := range []string{"", "a", "b", "0123456789abcdef"} {
		n, _, err := m.Receive(buffer)
		if err != nil || string(buffer[:n]) != want {
			t.Fatalf("received %q, %v; want %q", buffer[:n], err, want)
		}
	}
	if _, _, err := m.Receive(buffer); err != unix.EAGAIN {
		t.Fatalf("receive from an empty one: %v, want EAGAIN", err)
	}
}

func TestCreateRefusesATakenName_S28(t *testing.T) {
	m := newMQ(t, 1, 1)
	if _, err := Create(m.Name(), m.Geometry()); err != unix.EEXIST {
		t.Fatalf("got %v, want EEXIST", err)
	}
}

func TestUnlinkSparesAnotherOfTheSameName_S28(t *testing.T) {
	m := newMQ(t, 1, 1)
	if ours, err := m.Unlink(); err != nil || !ours {
		t.Fatalf("unlink: %v, %v", ours, err)
	}
	stranger, err := Create(m.Name(), m.Geometry())
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	defer stranger.Unlink()
	if ours, err := m.Unlink(); err != nil || ours {
		t.Fatalf("unlink once more: %v, %v; want false", ours, err)
	}
	if st, err := stranger.Stat(); err != nil || !st.Linked {
		t.Fatalf("the stranger's was unlinked: %+v, %v", st, err)
	}
}

func TestMarkStaysUntilAMessageIsSent(t *testing.T) {
	m := newMQ(t, 1, 1)
	const mark = 1<<60 | 12345
	if err := m.Mark(mark); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(m.Chmod(0o620), m.Chown(-1, os.Getegid())); err != nil {
		t.Fatal(err)
	}
	if st, err := reopen(t, m).Stat(); err != nil || st.Mark != mark || st.Mode != 0o620 {
		t.Fatalf("%+v, %v", st, err)
	}
	m.Send([]byte("x"), 0)
	if st, err := m.Stat(); err != nil || st.Mark == mark {
		t.Fatalf("the mark outlived a message: %+v, %v", st, err)
	}
}

func TestDeadlineAndCloseWakeWaiters(t *testing.T) {
	m := newMQ(t, 1, 1)
	done := make(chan error)
	go func() { _, err := m.AwaitMessages(); done <- err }()
	m.SetDeadline(time.Unix(1, 0))
	if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
	m.SetDeadline(time.Time{})
	go func() { _, err := m.AwaitCount(func(int) bool { return false }); done <- err }()
	m.Unlink()
	m.Close()
	if err := <-done; !errors.Is(err, os.ErrClosed) {
		t.Fatalf("got %v", err)
	}
	if err := m.Send(nil, 0); err != os.ErrClosed {
		t.Fatalf("send after Close: %v", err)
	}
}

func TestForeignReceiveWakesAwaitCount_S30(t *testing.T) {
	m := newMQ(t, 2, 8)
	for range 2 {
		if err := m.Send([]byte("x"), 0); err != nil {
			t.Fatal(err)
		}
	}
	asked, done := make(chan int, 16), make(chan error)
	go func() {
		_, err := m.AwaitCount(func(current int) bool { asked <- current; return current == 0 })
		done <- err
	}()
	if n := <-asked; n != 2 {
		t.Fatalf("asked with %d first", n)
	}
	reader := startNative(t, "mqreceive", m.Name(), "2")
	reader.expect("0 1 x")
	reader.expect("0 1 x")
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
