package shmring

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/ipcd/ipcd/internal/attach"
)

// stale leaves a socket at path at which nobody listens.
func stale(t *testing.T, path string) {
	t.Helper()
	l, err := net.ListenUnix(attach.Network, &net.UnixAddr{Name: path, Net: attach.Network})
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
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	onlySocket(t, path)
	conn, err := net.Dial(attach.Network, path)
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
	first, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("a second listener: %v", err)
	}
	onlySocket(t, path)
	conn, err := net.Dial(attach.Network, path)
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
		if l, err := Listen(path); err == nil {
			l.Close()
			t.Errorf("%s was replaced", path)
		}
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("%s is gone: %v", path, err)
		}
	}
	if _, err := Listen("relative"); err == nil {
		t.Error("a relative path was taken")
	}
}

func TestCloseLeavesASocketThatIsNoLongerOurs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := Listen(path)
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
		listeners := make(chan *Listener, 8)
		for range 8 {
			racers.Go(func() {
				if l, err := Listen(path); err == nil {
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
			conn, err := net.Dial(attach.Network, path)
			if err != nil {
				t.Errorf("the winner is not there: %v", err)
			} else {
				conn.Close()
			}
			l.Close()
		}
	}
}

func TestEverybodyMayConnect(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "s")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if info, err := os.Stat(path); err != nil || info.Mode() != os.ModeSocket|0o666 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

func TestListenNeverReplacesALiveSocketOfAnotherKind(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	other, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if l, err := Listen(path); err == nil || !strings.Contains(err.Error(), "another process listens") {
		t.Errorf("%v, %v", l, err)
	}
}

func TestPathsThatDoNotFitAreRefused(t *testing.T) {
	long := "/" + strings.Repeat("d", 107)
	if l, err := Listen(long); err == nil || !strings.Contains(err.Error(), "107") {
		t.Errorf("%v, %v", l, err)
	}
}
