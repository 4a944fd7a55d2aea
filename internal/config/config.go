// Package config says how a daemon is set up: the defaults, and what a configuration file and the
// command line change.
package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ipcd/ipcd/internal/limits"
)

// Config is how a daemon is set up.
type Config struct {
	Socket      string        // path of the unix socket
	Listen      string        // TCP address, or "": none
	Insecure    bool          // TCP without TLS is understood to be open to every process of the host
	StateDir    string        // where everything durable is
	LogLevel    string        // one of LogLevels
	StopTimeout time.Duration // how long a stopping daemon waits for acks
}

// LogLevels is what LogLevel may be, from the most talkative on.
var LogLevels = []string{"debug", "info", "warn", "error"}

// The places of a daemon that root starts, as hier(7) has them.
const (
	systemSocket   = "/run/ipcd/ipcd.sock"
	systemStateDir = "/var/lib/ipcd"
)

// Default returns the configuration of a daemon started by uid without any. getenv is os.Getenv. An
// ordinary user's places are those of the XDG base directory specification; where the environment
// does not tell one, it stays empty, and Check says what to do.
func Default(uid int, getenv func(string) string) Config {
	c := Config{
		Socket:      systemSocket,
		StateDir:    systemStateDir,
		LogLevel:    "info",
		StopTimeout: limits.StopTimeoutDefault,
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
	for _, path := range []*string{&c.Socket, &c.StateDir} {
		absolute, err := filepath.Abs(*path)
		if err != nil {
			return fmt.Errorf("path %q: %w", *path, err)
		}
		*path = absolute
	}
	if !slices.Contains(LogLevels, c.LogLevel) {
		return fmt.Errorf("log level %q: it may be %s", c.LogLevel, strings.Join(LogLevels, ", "))
	}
	if c.StopTimeout < 0 || c.StopTimeout > limits.StopTimeoutMax {
		return fmt.Errorf("stop_timeout %v: it must be 0s to %v", c.StopTimeout, limits.StopTimeoutMax)
	}
	return nil
}
