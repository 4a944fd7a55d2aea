package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// lockName is the file in the state directory that a daemon holds locked while it lives. It contains
// the daemon's pid and stays when the daemon is gone: what counts is the lock.
const lockName = "lock"

// lockStateDir makes the state directory if it is missing and takes it for this process alone. The
// returned file holds the lock (flock(2)) until it is closed.
func lockStateDir(dir string) (*os.File, error) {
	if err := prepareStateDir(dir); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, lockName)
	lock, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	switch err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
	case errors.Is(err, unix.EWOULDBLOCK):
		defer lock.Close()
		return nil, fmt.Errorf("state directory %s is in use by %s; stop that one or choose another with --state-dir", dir, holder(lock))
	case err != nil:
		lock.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	if err := writePID(lock); err != nil {
		lock.Close()
		return nil, fmt.Errorf("write %s: %w", path, err)
	}
	return lock, nil
}

func writePID(lock *os.File) error {
	if err := lock.Truncate(0); err != nil {
		return err
	}
	_, err := lock.WriteAt(fmt.Appendln(nil, os.Getpid()), 0)
	return err
}

// holder names the daemon that wrote the lock file.
func holder(lock *os.File) string {
	text, err := io.ReadAll(io.LimitReader(lock, 32))
	if pid, convErr := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && convErr == nil {
		return fmt.Sprintf("another ipcd (pid %d)", pid)
	}
	return "another ipcd that is just starting"
}

// prepareStateDir makes dir, mode 0700. One that exists must be ours. If others could look into it,
// it is closed to them, but only if it is empty or was a state directory before: --state-dir /tmp
// must not close /tmp.
func prepareStateDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	var info unix.Stat_t
	if err := unix.Stat(dir, &info); err != nil {
		return fmt.Errorf("state directory %s: %w", dir, err)
	}
	if int(info.Uid) != os.Geteuid() {
		return fmt.Errorf("state directory %s belongs to uid %d and not to uid %d, as which ipcd runs; choose another with --state-dir", dir, info.Uid, os.Geteuid())
	}
	if info.Mode&0o077 == 0 {
		return nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	ours := len(entries) == 0
	for _, entry := range entries {
		ours = ours || entry.Name() == lockName
	}
	if !ours {
		return fmt.Errorf("state directory %s has mode %#o and holds other things; choose a directory of its own with --state-dir, or chmod 700 this one", dir, info.Mode&0o777)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	return nil
}
