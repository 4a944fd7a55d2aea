package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ipcd/ipcd/internal/limits"
)

func env(pairs ...string) func(string) string {
	return func(name string) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1]
			}
		}
		return ""
	}
}

func TestDefaultsFollowTheUser(t *testing.T) {
	for name, test := range map[string]struct {
		uid           int
		env           func(string) string
		socket, state string
	}{
		"root":            {0, env("XDG_RUNTIME_DIR", "/run/user/0", "HOME", "/home/x"), "/run/ipcd/ipcd.sock", "/var/lib/ipcd"},
		"user":            {1000, env("XDG_RUNTIME_DIR", "/run/user/1000", "HOME", "/home/x"), "/run/user/1000/ipcd/ipcd.sock", "/home/x/.local/state/ipcd"},
		"user with state": {1000, env("XDG_RUNTIME_DIR", "/r", "XDG_STATE_HOME", "/s", "HOME", "/home/x"), "/r/ipcd/ipcd.sock", "/s/ipcd"},
		"relative paths":  {1000, env("XDG_RUNTIME_DIR", "r", "XDG_STATE_HOME", "s", "HOME", "h"), "", ""},
	} {
		c := Default(test.uid, test.env)
		if c.Socket != test.socket || c.StateDir != test.state || c.LogLevel != "info" || c.StopTimeout != limits.StopTimeoutDefault || c.Listen != "" || c.Insecure {
			t.Errorf("%s: %+v", name, c)
		}
	}
}

func TestCheckSaysWhatToDo(t *testing.T) {
	good := Default(0, env())
	if err := good.Check(); err != nil {
		t.Errorf("a good configuration: %v", err)
	}
	for say, spoil := range map[string]func(*Config){
		"XDG_RUNTIME_DIR":                    func(c *Config) { c.Socket = "" },
		"XDG_STATE_HOME":                     func(c *Config) { c.StateDir = "" },
		"debug, info, warn or error":         func(c *Config) { c.LogLevel = "" },
		"did you mean debug?":                func(c *Config) { c.LogLevel = "debgu" },
		"stop_timeout: -1ns: it must be 0s":  func(c *Config) { c.StopTimeout = -1 },
		"max_memory: 1KiB: it must be 0, or": func(c *Config) { c.MaxMemory = 1024 },
		"at least 192MiB, which is 6 times":  func(c *Config) { c.MaxDisk = 2 << 20 },
		"keep_free":                          func(c *Config) { c.KeepFree = -1 },
		"payload_memory: 0":                  func(c *Config) { c.PayloadMemory = 0 },
		"256KiB to 32MiB":                    func(c *Config) { c.SegmentSize = 1 << 30 },
		"multiple of 4KiB":                   func(c *Config) { c.SegmentSize-- },
		"attach_socket and s":                func(c *Config) { c.AttachSocket = c.Socket },
		"ring_memory: 1KiB":                  func(c *Config) { c.RingMemory = 1024 },
		"ring_memory_per_uid: 0":             func(c *Config) { c.RingMemoryPerUID = 0 },
		"refuse or quarantine":               func(c *Config) { c.OnDamage = "panic" },
		"it must be 0s to 1h":                func(c *Config) { c.StopTimeout = limits.StopTimeoutMax + 1 },
		"TCP needs tls":                      func(c *Config) { c.Listen = "127.0.0.1:1" },
		"no loopback address":                func(c *Config) { c.Listen, c.Insecure = "10.0.0.1:1", true },
		":1\" is no loopback":                func(c *Config) { c.Listen, c.Insecure = ":1", true },
		"missing port":                       func(c *Config) { c.Listen, c.Insecure = "localhost", true },
		"port 65536: it must be 0 to 65535":  func(c *Config) { c.HTTP = "localhost:65536" },
		"port \"\"":                          func(c *Config) { c.HTTP = "localhost:" },
		"after unix: must be absolute":       func(c *Config) { c.HTTP = "unix:s" },
		"tls.key is missing":                 func(c *Config) { c.TLS.Cert = "/nowhere/cert.pem" },
		"tls.client_ca is missing":           func(c *Config) { c.TLS.Cert = "/nowhere/cert.pem" },
		"there is no such file":              func(c *Config) { c.TLS.Cert = "/nowhere/cert.pem" },
		"path must be absolute":              func(c *Config) { c.TLS.Cert = "cert.pem" },
		"can not be insecure":                func(c *Config) { c.Listen, c.Insecure, c.TLS.Cert = "127.0.0.1:1", true, "/x" },
	} {
		c := good
		spoil(&c)
		if err := c.Check(); err == nil || !strings.Contains(err.Error(), say) {
			t.Errorf("said %v, want %q in it", err, say)
		}
	}
}

func TestCheckTakesWhatIsAllowed(t *testing.T) {
	for name, edit := range map[string]func(*Config){
		"loopback":         func(c *Config) { c.Listen, c.Insecure = "127.0.0.1:0", true },
		"loopback by name": func(c *Config) { c.Listen, c.Insecure = "localhost:7475", true },
		"IPv6 loopback":    func(c *Config) { c.Listen, c.Insecure = "[::1]:7475", true },
		"insecure alone":   func(c *Config) { c.Insecure = true },
		"HTTP":             func(c *Config) { c.HTTP = ":9475" },
		"HTTP on a socket": func(c *Config) { c.HTTP = "unix:/run/ipcd/ops.sock" },
		"no bounds":        func(c *Config) { c.MaxDisk, c.MaxMemory, c.KeepFree, c.StopTimeout = 0, 0, 0, 0 },
		"least disk":       func(c *Config) { c.MaxDisk, c.SegmentSize = 6<<20, 1<<20 },
	} {
		c := Default(0, env())
		edit(&c)
		if err := c.Check(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCheckReportsAllProblems(t *testing.T) {
	c := Default(0, env())
	c.LogLevel, c.OnDamage, c.Listen = "x", "y", "z"
	err := c.Check()
	for _, key := range []string{"log_level", "on_damage", "listen"} {
		if err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("%s is missing in %v", key, err)
		}
	}
}

func TestCheckMakesPathsAbsolute(t *testing.T) {
	c := Default(0, env())
	c.Socket, c.StateDir = "s", "d/../e"
	if err := c.Check(); err != nil {
		t.Fatal(err)
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	if c.Socket != filepath.Join(here, "s") || c.StateDir != filepath.Join(here, "e") {
		t.Errorf("%+v", c)
	}
}

func TestAttachSocketStandsBesideTheSocketUnlessItIsNamed(t *testing.T) {
	for given, want := range map[string]string{"": "/run/x/attach.sock", "/elsewhere/a": "/elsewhere/a"} {
		c := Default(0, env())
		c.Socket, c.AttachSocket = "/run/x/s", given
		if err := c.Check(); err != nil || c.AttachSocket != want {
			t.Errorf("%q becomes %q, %v; want %q", given, c.AttachSocket, err, want)
		}
	}
}

func TestCheckNamesTheLineOnlyOfWhatStandsThere(t *testing.T) {
	c, err := loadText(t, "log_level: info\nlisten: 127.0.0.1:1\n")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Check(); err == nil || !strings.Contains(err.Error(), "ipcd.yaml:2: listen: ") {
		t.Errorf("said %v", err)
	}
	c.Listen = "127.0.0.1:2" // as a flag would
	if err := c.Check(); err == nil || !strings.HasPrefix(err.Error(), "listen: ") {
		t.Errorf("said %v", err)
	}
}
