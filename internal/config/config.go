// Package config says how a daemon is set up: the defaults, and what a configuration file and the
// command line change.
package config

import (
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/units"
)

// Config is how a daemon is set up.
type Config struct {
	Socket       string        // path of the unix socket
	AttachSocket string        // path of the socket at which rings are attached to, or "": attach.sock beside Socket
	Listen       string        // TCP address, or "": none
	Insecure     bool          // TCP without TLS is understood to be open to every process of the host
	StateDir     string        // where everything durable is
	LogLevel     string        // one of LogLevels
	StopTimeout  time.Duration // how long a stopping daemon waits for acks

	// The journal, and what messages may take. Sizes are bytes.
	MaxMemory     int64  // of all messages in memory, 0: no bound
	PayloadMemory int64  // of payloads from which on those of deep backlogs stay on disk only
	MaxDisk       int64  // of the journal's files, 0: no bound
	KeepFree      int64  // of the file system to leave free
	SegmentSize   int64  // of a new file of the journal
	OnDamage      string // Refuse or Quarantine

	// The shared memory of rings, in bytes.
	RingMemory       int64 // of all members of all rings
	RingMemoryPerUID int64 // of those that one uid attached
}

// What OnDamage may be.
const (
	Refuse     = "refuse"     // the daemon does not start
	Quarantine = "quarantine" // the queues concerned are read-only, all else runs
)

// LogLevels is what LogLevel may be, from the most talkative on.
var LogLevels = []string{"debug", "info", "warn", "error"}

// The places of a daemon that root starts, as hier(7) has them.
const (
	systemSocket   = "/run/ipcd/ipcd.sock"
	systemStateDir = "/var/lib/ipcd"
)

// attachName is the attach socket beside the socket, where clients look for it too.
const attachName = "attach.sock"

// Default returns the configuration of a daemon started by uid without any. getenv is os.Getenv. An
// ordinary user's places are those of the XDG base directory specification; where the environment
// does not tell one, it stays empty, and Check says what to do.
func Default(uid int, getenv func(string) string) Config {
	c := Config{
		Socket:      systemSocket,
		StateDir:    systemStateDir,
		LogLevel:    "info",
		StopTimeout: limits.StopTimeoutDefault,

		PayloadMemory: limits.PayloadMemoryDefault,
		KeepFree:      limits.KeepFreeDefault,
		SegmentSize:   limits.SegmentBytes,
		OnDamage:      Refuse,

		RingMemory:       limits.RingMemoryDefault,
		RingMemoryPerUID: limits.RingMemoryUIDDefault,
	}
	if uid == 0 {
		return c
	}
	c.Socket, c.StateDir = "", ""
	// The specification says to ignore relative paths.
	if dir := getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		c.Socket = filepath.Join(dir, "ipcd", "ipcd.sock")
	}
	if dir := getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		c.StateDir = filepath.Join(dir, "ipcd")
	} else if home := getenv("HOME"); filepath.IsAbs(home) {
		c.StateDir = filepath.Join(home, ".local", "state", "ipcd")
	}
	return c
}

// Check says what is wrong with the configuration, if anything, and makes its paths absolute.
func (c *Config) Check() error {
	if c.Socket == "" {
		return errors.New("no place for the socket: XDG_RUNTIME_DIR is not set to an absolute path; set it, or name a path with --socket (clients then need IPCD_ADDRESS)")
	}
	if c.StateDir == "" {
		return errors.New("no place for the state: neither XDG_STATE_HOME nor HOME is set to an absolute path; set one, or name a directory with --state-dir")
	}
	if c.AttachSocket == "" {
		c.AttachSocket = filepath.Join(filepath.Dir(c.Socket), attachName)
	}
	for _, path := range []*string{&c.Socket, &c.AttachSocket, &c.StateDir} {
		absolute, err := filepath.Abs(*path)
		if err != nil {
			return fmt.Errorf("path %q: %w", *path, err)
		}
		*path = absolute
	}
	if c.AttachSocket == c.Socket {
		return fmt.Errorf("attach_socket and socket are both %q: name another with --attach-socket", c.Socket)
	}
	if !slices.Contains(LogLevels, c.LogLevel) {
		return fmt.Errorf("log level %q: it may be %s", c.LogLevel, strings.Join(LogLevels, ", "))
	}
	for _, size := range []struct {
		key            string
		v, least, most int64
	}{
		{"max_memory", c.MaxMemory, 64 << 20, math.MaxInt64}, {"max_disk", c.MaxDisk, 6 * c.SegmentSize, math.MaxInt64},
		{"keep_free", c.KeepFree, 0, math.MaxInt64}, {"payload_memory", c.PayloadMemory, 1 << 20, math.MaxInt64},
		{"segment_size", c.SegmentSize, limits.SegmentBytesMin, limits.SegmentBytes},
		{"ring_memory", c.RingMemory, limits.RingCapacityMin, math.MaxInt64},
		{"ring_memory_per_uid", c.RingMemoryPerUID, limits.RingCapacityMin, math.MaxInt64},
	} {
		off := size.v == 0 && (size.key == "max_memory" || size.key == "max_disk")
		if !off && (size.v < size.least || size.v > size.most) {
			return fmt.Errorf("%s %s: it must be at least %s%s", size.key, units.FormatSize(size.v), units.FormatSize(size.least), atMost(size.most))
		}
	}
	if c.SegmentSize%4096 != 0 {
		return fmt.Errorf("segment_size %d: it must be a multiple of 4KiB", c.SegmentSize)
	}
	if c.OnDamage != Refuse && c.OnDamage != Quarantine {
		return fmt.Errorf("on_damage %q: it may be %s or %s", c.OnDamage, Refuse, Quarantine)
	}
	if c.StopTimeout < 0 || c.StopTimeout > limits.StopTimeoutMax {
		return fmt.Errorf("stop_timeout %v: it must be 0s to %v", c.StopTimeout, limits.StopTimeoutMax)
	}
	return nil
}

func atMost(n int64) string {
	if n == math.MaxInt64 {
		return ""
	}
	return " and at most " + units.FormatSize(n)
}
