package ops

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSocketIsForOwnerAndGroup(t *testing.T) {
	path := filepath.Join(t.TempDir(), "http.sock")
	l, err := Listen("unix:" + path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	l.Close()
	if _, err := os.Stat(path); err == nil {
		t.Error("the socket's name is left behind")
	}
}

func TestDeadSocketIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "http.sock")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	l, err := Listen("unix:" + path)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}

func TestSocketInUseAndOtherFilesAreLeftAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "http.sock")
	l, err := Listen("unix:" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := Listen("unix:" + path); err == nil || !strings.Contains(err.Error(), "another process listens") {
		t.Errorf("%v", err)
	}
	if c, err := net.Dial("unix", path); err != nil {
		t.Errorf("the first one cannot be reached any more: %v", err)
	} else {
		c.Close()
	}
	file := filepath.Join(t.TempDir(), "notes")
	if err := os.WriteFile(file, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen("unix:" + file); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("%v", err)
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "mine" {
		t.Errorf("%q %v", text, err)
	}
}

func TestWrongAddressesAreRefused(t *testing.T) {
	for address, why := range map[string]string{
		"":                                  "host:port",
		"localhost":                         "host:port",
		"/run/ipcd/http.sock":               "host:port",
		"unix:":                             "absolute",
		"unix:http.sock":                    "absolute",
		"unix:/" + strings.Repeat("x", 200): "201 bytes",
		"unix:/nowhere/at/all/http.sock":    "no such file",
		"127.0.0.1:99999":                   "127.0.0.1:99999",
	} {
		if l, err := Listen(address); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%q: %v", address, err)
			if err == nil {
				l.Close()
			}
		}
	}
}
