package main

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"github.com/ipcd/ipcd/internal/config"
)

// closedToTheDaemon warns of files that root, who checks the configuration, can read, and the user who owns the state
// directory, as whom the daemon runs, can not. Without a state directory nothing is known of that user.
func closedToTheDaemon(cfg *config.Config) (warnings []string) {
	info, err := os.Stat(cfg.StateDir)
	if os.Geteuid() != 0 || err != nil {
		return nil
	}
	uid := info.Sys().(*syscall.Stat_t).Uid
	if uid == 0 {
		return nil
	}
	who, groups := fmt.Sprintf("uid %d", uid), []string{}
	if u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10)); err == nil {
		who = "the user " + u.Username
		groups, _ = u.GroupIds() // none: then the bits for others decide
	}
	for _, path := range append(slices.Clone(cfg.Files), cfg.TLS.Cert, cfg.TLS.Key, cfg.TLS.ClientCA) {
		if path != "" && !readableBy(path, uid, groups) {
			warnings = append(warnings, fmt.Sprintf("%s: by its mode, or that of a directory before it, %s can not read it, as whom the daemon runs", path, who))
		}
	}
	return warnings
}

// readableBy reports whether modes let a user read a file. What is not there is not this question's business.
func readableBy(path string, uid uint32, groups []string) bool {
	path, err := filepath.Abs(path)
	if err != nil {
		return true
	}
	for want := os.FileMode(4); ; path, want = filepath.Dir(path), 1 {
		info, err := os.Stat(path)
		if err != nil {
			return true
		}
		mode, owner := info.Mode().Perm(), info.Sys().(*syscall.Stat_t)
		switch {
		case owner.Uid == uid:
			mode >>= 6
		case slices.Contains(groups, strconv.FormatUint(uint64(owner.Gid), 10)):
			mode >>= 3
		}
		if mode&want == 0 {
			return false
		}
		if path == filepath.Dir(path) {
			return true
		}
	}
}
