package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/ipcd/ipcd/broker"
	"github.com/ipcd/ipcd/internal/config"
	"github.com/ipcd/ipcd/internal/vfs"
)

// addOffline adds the commands that work on a state directory without a daemon.
func addOffline(root *cobra.Command) {
	root.AddCommand(newFsck(), newLs(), newPeek(), newRestore())
}

// stateFlag is --state-dir of the offline commands.
type stateFlag struct{ dir string }

func (f *stateFlag) add(c *cobra.Command) {
	c.Flags().StringVar(&f.dir, "state-dir", "", "the state `DIRECTORY` (default: that of a daemon started by the same user)")
}

// path returns the state directory, absolute.
func (f *stateFlag) path(c *cobra.Command) (string, error) {
	dir := f.dir
	if !c.Flags().Changed("state-dir") {
		dir = config.Default(os.Geteuid(), os.Getenv).StateDir
	}
	if dir == "" {
		return "", usageError{errors.New("no state directory: neither XDG_STATE_HOME nor HOME tells one; name it with --state-dir")}
	}
	return filepath.Abs(dir)
}

// inspect reads the journal of a state directory, which no daemon may use meanwhile. task stands before
// the progress. done gives the directory free.
func inspect(c *cobra.Command, dir, task string, verify bool) (_ *broker.Inspection, done func(), err error) {
	lock, err := shareStateDir(dir)
	if err != nil {
		return nil, nil, err
	}
	journal := filepath.Join(dir, journalDir)
	if err := checkJournal(journal); err != nil {
		unlock(lock)
		return nil, nil, err
	}
	shown := newProgress(c.ErrOrStderr(), task)
	found, err := broker.Inspect(c.Context(), broker.InspectOptions{FS: vfs.OS{}, Dir: journal, Verify: verify, Progress: shown.show})
	shown.clear()
	if err != nil {
		unlock(lock)
		return nil, nil, fmt.Errorf("journal in %s: %w", dir, err)
	}
	return found, func() { unlock(lock) }, nil
}

// shareStateDir keeps daemons off a state directory until the returned file is closed. Nothing is
// written: where there is no lock file no daemon was ever, and nil is returned.
func shareStateDir(dir string) (*os.File, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("state directory %s: it is no directory; name another with --state-dir", dir)
	}
	path := filepath.Join(dir, lockName)
	lock, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("state directory: %w; only root and the daemon's user may look into it", err)
	case err != nil:
		return nil, fmt.Errorf("state directory: %w", err)
	}
	switch err := unix.Flock(int(lock.Fd()), unix.LOCK_SH|unix.LOCK_NB); {
	case errors.Is(err, unix.EWOULDBLOCK):
		defer lock.Close()
		return nil, fmt.Errorf("state directory %s is in use by %s; ask that one with ipcctl, or stop it first", dir, holder(lock))
	case err != nil:
		lock.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return lock, nil
}

func unlock(lock *os.File) {
	if lock != nil {
		lock.Close()
	}
}

// checkJournal explains why there is no journal, if there is none.
func checkJournal(dir string) error {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		hint := "name the state directory of a daemon with --state-dir"
		if _, err := os.Lstat(dir + partialSuffix); err == nil {
			hint = "a restore did not finish there: run it again"
		}
		return fmt.Errorf("there is no journal at %s: %s", dir, hint)
	case err != nil:
		return err
	case !info.IsDir():
		return fmt.Errorf("%s is no directory, so there is no journal in it", dir)
	}
	return nil
}

// damageFound ends a command that has shown what it could.
type damageFound struct {
	err    broker.DamageError
	advice string
}

// Error says what to do; where and what was shown before.
func (e damageFound) Error() string { return "the journal is damaged; " + e.advice }

// Unwrap makes the exit code that of damage.
func (e damageFound) Unwrap() error { return e.err }

// queueArgument is the name of a queue on the command line, where the slash may be left out.
func queueArgument(c *cobra.Command, args []string) error {
	if len(args) == 1 {
		return nil
	}
	return usageError{fmt.Errorf("%d arguments: it takes the name of one queue\nTry '%s --help'", len(args), c.CommandPath())}
}
