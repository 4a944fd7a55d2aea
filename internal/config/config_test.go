package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

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
	good := Config{Socket: "/s", StateDir: "/d", LogLevel: "info", PayloadMemory: 1 << 20, SegmentSize: 1 << 20, OnDamage: Refuse,
		RingMemory: 1 << 20, RingMemoryPerUID: 1 << 20}
	if err := good.Check(); err != nil {
		t.Errorf("a good configuration: %v", err)
	}
	for say, spoil := range map[string]func(*Config){
		"XDG_RUNTIME_DIR":     func(c *Config) { c.Socket = "" },
		"XDG_STATE_HOME":      func(c *Config) { c.StateDir = "" },
		"debug, info":         func(c *Config) { c.LogLevel = "" },
		"it must be 0s":       func(c *Config) { c.StopTimeout = -1 },
		"max_memory 1.0 KiB":  func(c *Config) { c.MaxMemory = 1024 },
		"at least 6.0 MiB":    func(c *Config) { c.MaxDisk = 1 << 20 },
		"keep_free":           func(c *Config) { c.KeepFree = -1 },
		"payload_memory 0 B":  func(c *Config) { c.PayloadMemory = 0 },
		"at most 32.0 MiB":    func(c *Config) { c.SegmentSize = 1 << 30 },
		"multiple of 4KiB":    func(c *Config) { c.SegmentSize++ },
		"attach_socket and s": func(c *Config) { c.AttachSocket = c.Socket },
		"ring_memory 1.0 KiB": func(c *Config) { c.RingMemory = 1024 },
		"ring_memory_per_uid": func(c *Config) { c.RingMemoryPerUID = 0 },
		"refuse or quarantin": func(c *Config) { c.OnDamage = "panic" },
		"it must be 0s to 1h": func(c *Config) { c.StopTimeout = limits.StopTimeoutMax + 1 },
	} {
		c := good
		spoil(&c)
		if err := c.Check(); err == nil || !strings.Contains(err.Error(), say) {
			t.Errorf("said %v, want %q in it", err, say)
		}
	}
}

func TestCheckMakesPathsAbsolute(t *testing.T) {
	c := Config{Socket: "s", StateDir: "d/../e", LogLevel: "info", PayloadMemory: 1 << 20, SegmentSize: 1 << 20, OnDamage: Refuse,
		RingMemory: 1 << 20, RingMemoryPerUID: 1 << 20}
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

func TestFileChangesWhatItNames(t *testing.T) {
	before := Config{Socket: "/s", Listen: "l", StateDir: "/d", LogLevel: "info", StopTimeout: 1}
	for text, want := range map[string]Config{
		"":                 before,
		"# nothing\n":      before,
		"socket: /other":   {Socket: "/other", Listen: "l", StateDir: "/d", LogLevel: "info", StopTimeout: 1},
		"listen: ''":       {Socket: "/s", StateDir: "/d", LogLevel: "info", StopTimeout: 1},
		"stop_timeout: 0s": {Socket: "/s", Listen: "l", StateDir: "/d", LogLevel: "info"},
		"max_memory: 1GiB\npayload_memory: 64M\nmax_disk: 10GB\nkeep_free: 4096\nsegment_size: 1MiB\non_damage: quarantine\n": {Socket: "/s", Listen: "l", StateDir: "/d", LogLevel: "info", StopTimeout: 1,
			MaxMemory: 1 << 30, PayloadMemory: 64 << 20, MaxDisk: 10e9, KeepFree: 4096, SegmentSize: 1 << 20, OnDamage: Quarantine},
		"attach_socket: /e\nring_memory: 2GiB\nring_memory_per_uid: 64MiB\n": {Socket: "/s", Listen: "l", StateDir: "/d", LogLevel: "info", StopTimeout: 1,
			AttachSocket: "/e", RingMemory: 2 << 30, RingMemoryPerUID: 64 << 20},
		"socket: /a\nlisten: b:1\ninsecure: true\nstate_dir: /c\nlog_level: debug\nstop_timeout: 1m30s\n": {Socket: "/a", Listen: "b:1", Insecure: true, StateDir: "/c", LogLevel: "debug", StopTimeout: 90 * time.Second},
	} {
		c := before
		if err := c.parse([]byte(text)); err != nil || c != want {
			t.Errorf("%q: %+v, %v", text, c, err)
		}
	}
}

func TestMistakesInAFileNameTheLine(t *testing.T) {
	for text, say := range map[string][]string{
		"log_level: info\nsokket: /x\n":   {"line 2", "sokket", fileKeys},
		"socket: /a\nsocket: /b\n":        {"line 2", "socket"},
		"insecure: perhaps\n":             {"line 1", "bool"},
		"\nstop_timeout: 10\n":            {"10", "such as 10s"},
		"max_disk: plenty\n":              {"plenty", "no size", "64KiB"},
		"stop_timeout: soon\n":            {"soon", "such as 10s"},
		"socket: [a, b]\n":                {"line 1"},
		"- socket\n":                      {"line 1"},
		"socket: \"unclosed\nlisten: x\n": {"line"},
		"socket: /a\n---\nsocket: /b\n":   {"second document"},
	} {
		var c Config
		err := c.parse([]byte(text))
		if err == nil {
			t.Errorf("%q was taken: %+v", text, c)
			continue
		}
		for _, s := range say {
			if !strings.Contains(err.Error(), s) {
				t.Errorf("%q: said %q, want %q in it", text, err, s)
			}
		}
	}
}

func TestHugeFilesAreRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "huge")
	if err := os.WriteFile(path, make([]byte, fileBytes+1), 0o600); err != nil {
		t.Fatal(err)
	}
	var c Config
	if err := c.Load(path); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("said %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("socket: /a\nstop_timeout: 10s\n"))
	f.Add([]byte("a: &a [*a]\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		var c Config
		if err := c.parse(text); err != nil && err.Error() == "" {
			t.Error("an error without words")
		}
	})
}
