package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/ipcd/ipcd/client"
)

// partialSuffix is what a backup's name ends in until it is complete.
const partialSuffix = ".partial"

func newBackup(a *app) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "backup FILE|-",
		Short: "Write a consistent copy of the journal to a file, or to stdout",
		Long: `Write a consistent copy of the journal, with everything that was acknowledged so far, as a tar archive.
The daemon goes on meanwhile. Only admins may: root, the daemon's user and members of its admin_group.

It has the queues with their messages and settings, and not what stands beside the journal: the definitions of rings
(rings.json), and the limits that ipcctl quota set (quotas.json). ipcd restore makes a state directory of it.

The archive is checked as it arrives. It is written to FILE.partial, which becomes FILE once it is complete
and on disk. Its last file, MANIFEST.json, lists the others: an archive without it was cut off.`,
		Example: `  ipcctl backup ipcd.tar
  ipcctl backup ipcd.tar --force
  ipcctl backup - | zstd > ipcd.tar.zst`,
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case len(args) == 0 || args[0] == "":
				return usagef("name a file to write, or - for stdout, as in: ipcctl backup ipcd.tar")
			case len(args) > 1:
				return usagef("backup writes one file, %s is too much; see ipcctl backup --help", quoteArg(args[1]))
			}
			return nil
		},
		RunE: a.long(func(ctx context.Context, _ *cobra.Command, args []string) error {
			c, err := a.dial()
			if err != nil {
				return err
			}
			if args[0] == "-" {
				return a.backupToStdout(ctx, c)
			}
			return a.backupToFile(ctx, c, args[0], force)
		}),
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "replace FILE where it exists, and a FILE.partial that was left over")
	return cmd
}

func (a *app) backupToStdout(ctx context.Context, c *client.Client) error {
	if a.outTTY {
		return usagef("an archive is nothing for a terminal: name a file, or send it on, as in: ipcctl backup - | zstd > ipcd.tar.zst")
	}
	// A reader that went away has no backup: unlike elsewhere that is a failure.
	p := a.newProgress()
	defer p.clear()
	return c.Backup(ctx, a.out, p.bytes)
}

func (a *app) backupToFile(ctx context.Context, c *client.Client, path string, force bool) (err error) {
	there, err := os.Stat(path)
	switch {
	case err == nil && !there.Mode().IsRegular():
		return fmt.Errorf("%s is no regular file: name another", quoteArg(path))
	case err == nil && !force:
		return fmt.Errorf("%s exists: name another file, or replace it with --force", quoteArg(path))
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	partial := path + partialSuffix
	if force {
		if err := os.Remove(partial); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	f, err := os.OpenFile(partial, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) // it holds everybody's messages
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s exists: another backup is under way, or was interrupted; remove it, or give --force", quoteArg(partial))
	}
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(partial) // of no use, and the error that matters is known
		}
	}()
	if err := a.writeBackup(ctx, c, f); err != nil {
		return err
	}
	size, err := completeFile(f, path)
	if err != nil {
		return err
	}
	a.say("wrote %s: %s", escapeLine(path), humanBytes(uint64(size)))
	return nil
}

func (a *app) writeBackup(ctx context.Context, c *client.Client, f *os.File) error {
	p := a.newProgress()
	defer p.clear()
	return c.Backup(ctx, f, p.bytes)
}

// completeFile makes a written file durable, closes it and gives it its final name.
func completeFile(f *os.File, path string) (size int64, err error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if err := f.Sync(); err != nil {
		return 0, err
	}
	if err := f.Close(); err != nil {
		return 0, err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return 0, err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return 0, err
	}
	defer dir.Close()
	return info.Size(), dir.Sync()
}

// bytes shows how many bytes of how many have come.
func (p *progress) bytes(done, total int64) {
	p.show("%s of %s …", humanBytes(uint64(max(done, 0))), humanBytes(uint64(max(total, 0))))
}
