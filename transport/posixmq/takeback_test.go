package posixmq

import (
	"errors"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ipcd/ipcd/transport/posixmq/lanetest"
)

// withDev calls f, which must not end the test, on a thread that has the mqueue file system in /dev/mqueue, or does not.
func withDev(t *testing.T, mounted bool, f func() error) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount")
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if err := lanetest.PrivateDev(mounted); err != nil {
			done <- err
			return
		}
		if err := f(); err != nil {
			t.Error(err)
		}
		done <- nil
	}()
	if err := <-done; errors.Is(err, unix.EPERM) {
		t.Skip(err) // a container's root may not
	} else if err != nil {
		t.Fatal(err)
	}
}

// another gives a kernel queue to another user, who has no bits.
func another(m *MQ) error { return errors.Join(m.Chmod(0o060), m.Chown(54321, -1)) }

func checkStat(t *testing.T, m *MQ, uid, mode uint32) {
	t.Helper()
	if st, err := m.Stat(); err != nil || st.UID != uid || st.Mode != mode {
		t.Errorf("uid %d, mode %04o, %v; want %d and %04o", st.UID, st.Mode, err, uid, mode)
	}
}

func TestTakeBackGivesOwnerAndItsBitsOnly_S28(t *testing.T) {
	m := newMQ(t, 1, 1)
	withDev(t, true, func() error {
		if err := another(m); err != nil {
			return err
		}
		st, err := m.Stat()
		if err != nil {
			return err
		}
		if err := TakeBack(m.Name(), st.Inode+1); err != unix.ENOENT {
			t.Errorf("an inode that is not its own: %v, want ENOENT", err)
		}
		checkStat(t, m, 54321, 0o060)
		if err := TakeBack(m.Name(), st.Inode); err != nil {
			t.Error(err)
		}
		checkStat(t, m, uint32(os.Geteuid()), 0o660)
		return nil
	})
}

// The owner puts another object in its place after it was looked up.
func TestTakeBackSparesWhatCameInItsPlace_S28(t *testing.T) {
	m := newMQ(t, 1, 1)
	withDev(t, true, func() error {
		if err := another(m); err != nil {
			return err
		}
		fd, _, err := lookUp(m.Name())
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if _, err := m.Unlink(); err != nil {
			return err
		}
		stranger, err := Create(m.Name(), m.Geometry())
		if err != nil {
			return err
		}
		defer stranger.Close()
		defer stranger.Unlink()
		if err := another(stranger); err != nil {
			return err
		}
		if err := take(fd); err != nil {
			t.Error(err)
		}
		checkStat(t, stranger, 54321, 0o060)
		checkStat(t, m, uint32(os.Geteuid()), 0o660) // it is the one that was looked up
		if err := m.CanTakeBack(); !errors.Is(err, ErrHidden) {
			t.Errorf("an object that was replaced can be taken back: %v", err)
		}
		return nil
	})
}

func TestTakeBackWantsTheMount_S28(t *testing.T) {
	m := newMQ(t, 1, 1)
	for _, c := range []struct {
		mounted, readOnly bool
		want              string
	}{{true, false, ""}, {false, false, "not mounted"}, {true, true, "read-only"}} {
		withDev(t, c.mounted, func() error {
			if c.readOnly {
				if err := unix.Mount("", mountPoint, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
					return err
				}
			}
			for _, err := range []error{m.CanTakeBack(), TakeBack("/ipcd-test-none", 1)} {
				if c.want == "" {
					if err != nil && err != unix.ENOENT {
						t.Error(err)
					}
				} else if !errors.Is(err, ErrHidden) || !strings.Contains(err.Error(), c.want) {
					t.Errorf("got %v, want %q", err, c.want)
				}
			}
			return nil
		})
	}
}

// A name that would lead out of the mqueue file system, or to its directory.
func TestTakeBackRefusesPaths_S28(t *testing.T) {
	withDev(t, true, func() error {
		for _, name := range []string{"", "/", "x", "/.", "/..", "/../null", "//", "/a/b"} {
			if err := TakeBack(name, 1); err != unix.EINVAL {
				t.Errorf("%q: %v, want EINVAL", name, err)
			}
		}
		return nil
	})
}
