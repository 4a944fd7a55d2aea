package lanetest

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// PrivateDev gives the calling thread, and the processes that it starts, a /dev of its own with nothing in it but
// null and mqueue: the mqueue file system, or an empty directory if it is not to be mounted. It wants root. The caller
// has locked the thread and never unlocks it: the mounts end with the thread.
func PrivateDev(mounted bool) error {
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	dir, err := os.MkdirTemp("", "doors-dev")
	if err != nil {
		return err
	}
	defer os.Remove(dir)
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0755"); err != nil {
		return fmt.Errorf("mount a tmpfs: %w", err)
	}
	null := filepath.Join(dir, "null")
	if err := os.WriteFile(null, nil, 0o666); err != nil {
		return err
	}
	if err := unix.Mount("/dev/null", null, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind /dev/null: %w", err)
	}
	queues := filepath.Join(dir, "mqueue")
	if err := os.Mkdir(queues, 0o755); err != nil {
		return err
	}
	if mounted {
		if err := unix.Mount("mqueue", queues, "mqueue", 0, ""); err != nil {
			return fmt.Errorf("mount the mqueue file system: %w", err)
		}
	}
	return unix.Mount(dir, "/dev", "", unix.MS_MOVE, "")
}
