package ring

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// bootID identifies the time since the machine was started: members of before are gone.
func bootID(root string) (string, error) {
	b, err := os.ReadFile(filepath.Join(root, "proc/sys/kernel/random/boot_id"))
	id := strings.TrimSpace(string(b))
	if err == nil && id == "" {
		err = errors.New("it is empty")
	}
	if err != nil {
		return "", fmt.Errorf("read the boot id, which tells whether members of an earlier run can be alive: %w", err)
	}
	return id, nil
}

// memoryLimit is the limit in bytes of the memory cgroup that this process is in, version 1 or 2, or of one above
// it, whichever is less; 0: there is none, or it cannot be read. See cgroups(7).
func memoryLimit(root string) int64 {
	b, err := os.ReadFile(filepath.Join(root, "proc/self/cgroup"))
	if err != nil {
		return 0
	}
	least := int64(0)
	for lines := bufio.NewScanner(bytes.NewReader(b)); lines.Scan(); {
		// hierarchy:controllers:path; version 2 has the hierarchy 0 and no controllers
		parts := strings.SplitN(lines.Text(), ":", 3)
		if len(parts) != 3 {
			continue
		}
		base, name := "", ""
		switch {
		case parts[0] == "0" && parts[1] == "":
			base, name = filepath.Join(root, "sys/fs/cgroup"), "memory.max"
		case slices.Contains(strings.Split(parts[1], ","), "memory"):
			base, name = filepath.Join(root, "sys/fs/cgroup/memory"), "memory.limit_in_bytes"
		default:
			continue
		}
		// In a cgroup namespace the path may not be there, but the namespace's root is.
		for at := filepath.Clean("/" + parts[2]); ; at = filepath.Dir(at) {
			if limit := readLimit(filepath.Join(base, at, name)); limit > 0 && (least == 0 || limit < least) {
				least = limit
			}
			if at == "/" {
				break
			}
		}
	}
	return least
}

// readLimit reads a limit in bytes; 0: there is none.
func readLimit(name string) int64 {
	b, err := os.ReadFile(name)
	if err != nil {
		return 0
	}
	limit, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64) // "max": none
	if err != nil || limit < 0 {
		return 0
	}
	return limit
}
