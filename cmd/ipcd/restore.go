package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/ipcd/ipcd/broker"
	"github.com/ipcd/ipcd/internal/units"
	"github.com/ipcd/ipcd/internal/vfs"
)

// partialSuffix marks a journal that is being restored, and does not count yet.
const partialSuffix = ".partial"

func newRestore() *cobra.Command {
	var state stateFlag
	c := &cobra.Command{
		Use:   "restore FILE|-",
		Short: "make a state directory from a backup",
		Long: `Make a state directory from a backup that ipcctl backup has written; - reads it from standard input. There
must be no journal in the directory, and no daemon may run on it.

All of the backup is checked before anything counts: names, sizes, checksums and then the journal itself, as
ipcd fsck does. Until then it lies in journal.partial, and a restore that was interrupted is simply run again.
What stands beside the journal stays: the definitions of rings and the limits that ipcctl quota set are in no backup.

The directory must belong to the user who runs this, as which the daemon runs: for the system's daemon, ipcd.`,
		Example: `  runuser -u ipcd -- ipcd restore - --state-dir /var/lib/ipcd <ipcd.tar
  ipcd restore ipcd.tar
  zstd -dc jobs.tar.zst | ipcd restore - --state-dir /srv/copy-of-ipcd`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				return nil
			}
			return usageError{fmt.Errorf("%d arguments: it takes one file, or - for standard input\nTry '%s --help'", len(args), c.CommandPath())}
		},
		RunE: func(c *cobra.Command, args []string) error {
			dir, err := state.path(c)
			if err != nil {
				return err
			}
			return restore(c, args[0], dir)
		},
	}
	state.add(c)
	return c
}

// restore makes dir a state directory from the backup in file.
func restore(c *cobra.Command, file, dir string) error {
	in, total, err := openBackup(c, file)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := checkNoJournal(dir); err != nil { // before anything is made
		return err
	}
	lock, err := lockStateDir(dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := checkNoJournal(dir); err != nil {
		return err
	}
	partial := filepath.Join(dir, journalDir+partialSuffix)
	if err := removePartial(partial); err != nil { // of a restore that was interrupted
		return err
	}
	read, found, err := restoreInto(c, in, total, partial)
	if err != nil {
		err = fmt.Errorf("restore %s: %w", file, err)
		return errors.Join(err, removePartial(partial))
	}
	// rename(2) itself: other than os.Rename it replaces a directory, an empty one only.
	if err := unix.Rename(partial, filepath.Join(dir, journalDir)); err != nil {
		return fmt.Errorf("rename %s: %w", partial, err)
	}
	if err := (vfs.OS{}).SyncDir(dir); err != nil {
		return err
	}
	messages, bytes := int64(0), int64(0)
	for _, q := range found {
		messages += countStates(q.Stats.Stats).total()
		bytes += q.Stats.Bytes
	}
	_, err = fmt.Fprintf(c.OutOrStdout(), "restored %d queues with %d messages (%s) into %s, from a backup of %s\n",
		len(found), messages, units.FormatSize(bytes), escapeLine(dir), escapeLine(read.CreatedAt))
	return err
}

// openBackup opens the file, or standard input for "-", and tells how many bytes it has, 0 if that is
// not known.
func openBackup(c *cobra.Command, file string) (io.ReadCloser, int64, error) {
	if file == "-" {
		return io.NopCloser(c.InOrStdin()), 0, nil
	}
	in, err := os.Open(file)
	if err != nil {
		return nil, 0, err
	}
	info, err := in.Stat()
	if err == nil && info.IsDir() {
		err = fmt.Errorf("%s is a directory, not a backup: ipcctl backup writes a file", file)
	}
	if err != nil {
		in.Close()
		return nil, 0, err
	}
	if !info.Mode().IsRegular() {
		return in, 0, nil
	}
	return in, info.Size(), nil
}

// checkNoJournal refuses a state directory with a journal. An empty directory in its place is none.
func checkNoJournal(dir string) error {
	path := filepath.Join(dir, journalDir)
	entries, err := os.ReadDir(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	return fmt.Errorf("there is a journal at %s, and restore replaces nothing: name another directory with --state-dir, or move that journal away", path)
}

// removePartial removes what a restore has made, and nothing else.
func removePartial(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if !entry.Type().IsRegular() || !segmentName.MatchString("journal/"+entry.Name()) {
			return fmt.Errorf("%s is in the way, and holds other things than a restore left (%q): move it away", dir, entry.Name())
		}
	}
	for _, entry := range entries {
		if err := os.Remove(filepath.Join(dir, entry.Name())); err != nil {
			return err
		}
	}
	return os.Remove(dir)
}

// restoreInto unpacks a backup into the directory partial, makes it durable and checks it.
func restoreInto(c *cobra.Command, in io.Reader, total int64, partial string) (*manifest, []broker.Info, error) {
	disk := vfs.OS{}
	if err := disk.MkdirAll(partial); err != nil {
		return nil, nil, err
	}
	shown := newProgress(c.ErrOrStderr(), "restore")
	defer shown.clear()
	counted := &countingReader{ctx: c.Context(), in: in, total: total, show: shown.show}
	read, err := readBackup(counted, func(name string) (io.WriteCloser, error) {
		f, err := disk.Create(filepath.Join(partial, name))
		return &syncedFile{f: f}, err
	})
	if err != nil {
		return nil, nil, err
	}
	if err := disk.SyncDir(partial); err != nil {
		return nil, nil, err
	}
	shown.task = "check"
	found, err := broker.Inspect(c.Context(), broker.InspectOptions{FS: disk, Dir: partial, Verify: true, Progress: shown.show})
	if err != nil {
		return nil, nil, fmt.Errorf("the backup's journal: %w", err)
	}
	if damage := found.DamageError(); damage != nil {
		what := found.Damage[0].String()
		if more := len(found.Damage) - 1; more > 0 {
			what += fmt.Sprintf("; and %d more", more)
		}
		return nil, nil, damageInBackup{*damage, what}
	}
	return read, found.Queues, nil
}

// damageInBackup says that the journal was damaged when the backup was taken of it.
type damageInBackup struct {
	err  broker.DamageError
	what string
}

// Error says what was found and what to do.
func (e damageInBackup) Error() string {
	return "the backup is whole, but the journal in it is damaged: " + e.what + "; nothing was restored: take another backup"
}

// Unwrap makes the exit code that of damage.
func (e damageInBackup) Unwrap() error { return e.err }

// countingReader shows how far the reading has come, and ends with the context.
type countingReader struct {
	ctx         context.Context
	in          io.Reader
	done, total int64
	show        func(done, total int64)
}

func (r *countingReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := r.in.Read(p)
	r.done += int64(n)
	r.show(r.done, r.total)
	return n, err
}

// syncedFile is written from the beginning on, and durable when it is closed.
type syncedFile struct {
	f  vfs.File
	at int64
}

func (s *syncedFile) Write(p []byte) (int, error) {
	n, err := s.f.WriteAt(p, s.at)
	s.at += int64(n)
	return n, err
}

func (s *syncedFile) Close() error { return errors.Join(s.f.Sync(), s.f.Close()) }
