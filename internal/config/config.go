// Package config says how a daemon is set up: the defaults, and what a configuration file and the
// command line change.
package config

import (
	"path/filepath"
	"time"

	"github.com/ipcd/ipcd/internal/access"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/quota"
)

// Config is how a daemon is set up. What stands in its maps and slices is not to be changed.
type Config struct {
	Socket       string        // path of the unix socket
	AttachSocket string        // path of the socket at which rings are attached to, or "": attach.sock beside Socket
	Listen       string        // TCP address, or "": none
	Insecure     bool          // TCP without TLS is understood to be open to every process of the host
	HTTP         string        // address of the door for operators, host:port or unix:/path, or "": none
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

	// Who may do what, and how much.
	AdminGroup string        // as it was named, or ""
	TLS        TLS           // of TCP
	Access     access.Policy // the admin group and the rules; whose daemon it is stands elsewhere
	Quotas     quota.Config

	// What is to exist, by name.
	Queues []QueueDeclaration
	Rings  []RingDeclaration

	Files    []string // that were read, in this order
	Warnings []string // what is no mistake, and yet not as it was meant

	origins map[string]origin // where each key stands, by its path
}

// TLS is mutual TLS on TCP; without Cert there is none. The files are PEM.
type TLS struct {
	Cert     string
	Key      string
	ClientCA string
	Users    map[string]identity.Identity // certificate's name -> as whom it acts: Kind Certificate, Mapped
}

// On reports whether TCP has TLS.
func (t *TLS) On() bool { return t.Cert != "" }

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

// SystemFile is where the configuration of a host's daemon is.
const SystemFile = "/etc/ipcd/ipcd.yaml"

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
