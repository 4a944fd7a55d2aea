package rpc

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// stale leaves a socket at path at which nobody listens.
func stale(t *testing.T, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
}

func onlySocket(t *testing.T, path string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 || entries[0].Name() != filepath.Base(path) {
		t.Errorf("the directory holds %v, %v; want the socket alone", entries, err)
	}
}

func TestListenReplacesAStaleSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	stale(t, path)
	l, err := ListenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	onlySocket(t, path)
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	l.Close()
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Close left the socket: %v", err)
	}
}

func TestListenNeverReplacesALiveSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	first, err := ListenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if _, err := ListenUnix(path); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("a second listener: %v", err)
	}
	onlySocket(t, path)
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatalf("the first is disturbed: %v", err)
	}
	conn.Close()
}

func TestListenRefusesOtherFilesAndLinks(t *testing.T) {
	dir := t.TempDir()
	plain, link, elsewhere := filepath.Join(dir, "plain"), filepath.Join(dir, "link"), filepath.Join(dir, "elsewhere")
	if err := os.WriteFile(plain, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	stale(t, elsewhere)
	if err := os.Symlink(elsewhere, link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{plain, link, dir} {
		if l, err := ListenUnix(path); err == nil {
			l.Close()
			t.Errorf("%s was replaced", path)
		}
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("%s is gone: %v", path, err)
		}
	}
	if _, err := ListenUnix("relative"); err == nil {
		t.Error("a relative path was taken")
	}
}

func TestCloseLeavesASocketThatIsNoLongerOurs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := ListenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	stale(t, path)
	l.Close()
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("Close removed somebody's socket: %v", err)
	}
}

// Of listeners that race for a stale socket one wins, and it stays.
func TestOneOfManyListenersWins(t *testing.T) {
	for range 20 {
		path := filepath.Join(t.TempDir(), "s")
		stale(t, path)
		var racers sync.WaitGroup
		listeners := make(chan net.Listener, 8)
		for range 8 {
			racers.Go(func() {
				if l, err := ListenUnix(path); err == nil {
					listeners <- l
				}
			})
		}
		racers.Wait()
		close(listeners)
		if n := len(listeners); n != 1 {
			t.Fatalf("%d listeners at one path", n)
		}
		onlySocket(t, path)
		for l := range listeners {
			conn, err := net.Dial("unix", path)
			if err != nil {
				t.Errorf("the winner is not there: %v", err)
			} else {
				conn.Close()
			}
			l.Close()
		}
	}
}

func TestTCPIsForLoopbackOnly(t *testing.T) {
	for _, address := range []string{"", "7475", ":7475", "0.0.0.0:0", "[::]:0", "192.0.2.1:0", "127.0.0.1", "127.0.0.1:nonsense"} {
		l, err := ListenTCP(address, true, false)
		if err == nil {
			l.Close()
			t.Errorf("%q was taken", address)
			continue
		}
		var refused AddressError
		if !errors.As(err, &refused) || !strings.Contains(err.Error(), "loopback") {
			t.Errorf("%q: %v", address, err)
		}
	}
	if _, err := ListenTCP("127.0.0.1:0", false, false); err == nil || !strings.Contains(err.Error(), "--insecure is missing") {
		t.Errorf("without insecure: %v", err)
	}
	for _, address := range []string{"127.0.0.1:0", "localhost:0"} {
		l, err := ListenTCP(address, true, false)
		if err != nil {
			t.Errorf("%s: %v", address, err)
			continue
		}
		l.Close()
	}
}
