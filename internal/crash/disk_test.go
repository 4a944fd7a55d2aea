//go:build linux

package crash

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/ipcd/ipcd/client"
)

// mountVariable tells the test that runs itself again in a mount namespace of its own.
const mountVariable = "IPCD_CRASH_MOUNT"

// inMountNamespace runs the test again where it may mount, and reports whether this is that run.
func inMountNamespace(t *testing.T) bool {
	t.Helper()
	if os.Getenv(mountVariable) != "" {
		return true
	}
	flags := "-rm" // an ordinary user becomes root of a user namespace
	if os.Geteuid() == 0 {
		flags = "-m"
	}
	if output, err := exec.Command("unshare", flags, "true").CombinedOutput(); err != nil {
		t.Skipf("no mount namespace can be had: unshare %s: %v: %s", flags, err, output)
	}
	cmd := exec.Command("unshare", flags, os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=5m")
	cmd.Env = append(os.Environ(), mountVariable+"=1", binVariable+"="+bin)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	output, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(output), "--- PASS: "+t.Name()) {
		t.Errorf("%v\n%s", err, output)
	}
	return false
}

// mountTmpfs mounts a file system of so many bytes.
func mountTmpfs(t *testing.T, size int) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "disk")
	if err == nil {
		err = syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size))
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
		os.RemoveAll(dir)
	})
	return dir
}

// fill sends numbered messages until not even a small one fits, and returns the number after the last. first
// is the number of the first.
func fill(t *testing.T, q *client.Queue, first int) int {
	t.Helper()
	next := first
	for _, batch := range []struct{ messages, bytes int }{{16, 4096}, {1, 4096}, {1, 64}} {
		for full := false; !full; {
			messages := make([]client.Message, batch.messages)
			for i := range messages {
				messages[i].Body = numbered(next+i, batch.bytes)
			}
			_, err := q.Send(within(t), messages...)
			var e *client.Error
			switch {
			case err == nil:
				next += batch.messages
			case errors.As(err, &e) && errors.Is(err, client.ErrDiskFull):
				full = true
				if e.RetryAfter <= 0 {
					t.Errorf("the refusal gives no hint when to try again: %v", err)
				}
			default:
				t.Fatal(err)
			}
			if next > first+1<<20 {
				t.Fatal("the disk never fills")
			}
		}
	}
	return next
}

// numbered is a body that tells a number.
func numbered(n, bytes int) []byte {
	text := fmt.Sprintf("number %d ", n)
	return []byte(strings.Repeat(text, bytes/len(text)))
}

// isNumbered reports whether a body tells this number and nothing else.
func isNumbered(body []byte, n int) bool {
	return len(body) > 0 && len(strings.ReplaceAll(string(body), fmt.Sprintf("number %d ", n), "")) == 0
}

// take receives and acks n messages of /q, which must be those from first on.
func (h *home) take(first, n int) {
	t := h.t
	t.Helper()
	c := h.dial()
	q := c.Queue("/q")
	for n > 0 {
		deliveries, err := q.Receive(within(t), min(n, 64), client.ReceiveOptions{Wait: patience / 2})
		if err != nil || len(deliveries) == 0 {
			t.Fatalf("receive message %d: %d deliveries, %v", first, len(deliveries), err)
		}
		acks := make([]client.Settlement, len(deliveries))
		for i, d := range deliveries {
			if !isNumbered(d.Body, first) {
				t.Fatalf("received %.40q, want number %d", d.Body, first)
			}
			acks[i].Receipt = d.Receipt
			first++
		}
		if err := c.Settle(within(t), acks...); err != nil {
			t.Fatalf("ack on a full disk: %v", err)
		}
		n -= len(deliveries)
	}
}

// fullDisk plays a disk's filling and emptying through, with daemons of a home whose room is bounded.
func fullDisk(t *testing.T, h *home) {
	t.Helper()
	d := h.start()
	create(t, h.dial(), "/q", func(s *client.QueueSettings) { s.MaxBytes = 1 << 40 })
	q := h.dial().Queue("/q")
	stored := fill(t, q, 0)
	if stored < 64 {
		t.Fatalf("only %d messages were stored", stored)
	}
	if storage := storageOf(t, h); !storage.Full {
		t.Errorf("the daemon refuses sends and says %+v", storage)
	}

	// Receiving and acking go on, and a restart finds everything.
	taken := min(32, stored/8)
	h.take(0, taken)
	d.kill()
	h.clean()
	d = h.start()
	q = h.dial().Queue("/q")
	if info, err := q.Info(within(t)); err != nil || info.Stats.Messages() != int64(stored-taken) {
		t.Fatalf("after a restart on the full disk: %+v, %v; want %d messages", info.Stats, err, stored-taken)
	}

	// Acks make room, and sends work again by themselves.
	half := (stored - taken) / 2
	h.take(taken, half)
	taken += half
	eventually(t, "sends work again", func() bool {
		_, err := q.Send(within(t), client.Message{Body: numbered(stored, 4096)})
		if err != nil && !errors.Is(err, client.ErrDiskFull) {
			t.Fatal(err)
		}
		return err == nil
	})
	stored++
	stored = fill(t, q, stored)
	d.stop()
	h.clean()

	d = h.start()
	h.take(taken, stored-taken)
	if info, err := h.dial().Queue("/q").Info(within(t)); err != nil || info.Stats.Messages() != 0 {
		t.Errorf("after all was acked: %+v, %v", info.Stats, err)
	}
	d.stop()
	h.clean()
}

func storageOf(t *testing.T, h *home) client.Storage {
	t.Helper()
	info, err := h.dial().Info(within(t))
	if err != nil {
		t.Fatal(err)
	}
	return info.Storage
}

func TestFullDiskRefusesSendsAndNothingElse(t *testing.T) {
	if !inMountNamespace(t) {
		return
	}
	// The socket and the configuration are elsewhere.
	fullDisk(t, newHome(t, "state_dir: "+filepath.Join(mountTmpfs(t, 24<<20), "state"), "segment_size: 1MiB", "keep_free: 0"))
}

func TestSpaceTakenByOthersRefusesSends(t *testing.T) {
	if !inMountNamespace(t) {
		return
	}
	disk := mountTmpfs(t, 64<<20)
	h := newHome(t, "state_dir: "+filepath.Join(disk, "state"), "segment_size: 1MiB", "keep_free: 8MiB")
	d := h.start()
	create(t, h.dial(), "/q")
	q := h.dial().Queue("/q")
	other := filepath.Join(disk, "other")
	free := func() int64 {
		var s syscall.Statfs_t
		if err := syscall.Statfs(disk, &s); err != nil {
			t.Fatal(err)
		}
		return int64(s.Bavail) * s.Bsize
	}
	if err := os.WriteFile(other, make([]byte, free()-4<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	stored := fill(t, q, 0)
	if stored == 0 {
		t.Log("refused from the first on")
	}
	if left := free(); left < 1<<20 {
		t.Errorf("%d bytes of the file system are left", left)
	}
	if err := os.Remove(other); err != nil {
		t.Fatal(err)
	}
	eventually(t, "sends work again once there is space", func() bool {
		_, err := q.Send(within(t), client.Message{Body: numbered(stored, 4096)})
		return err == nil
	})
	h.take(0, stored+1)
	d.stop()
	h.clean()
}

func TestMaxDiskIsAFullDisk(t *testing.T) {
	const most = 8 << 20
	h := newHome(t, append([]string{fmt.Sprintf("max_disk: %d", most)}, smallSegments...)...)
	fullDisk(t, h)
	if used := bytesOf(t, h.journal()); used > most {
		t.Errorf("the journal has %d bytes, want at most %d", used, most)
	}
}
