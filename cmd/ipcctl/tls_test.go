package main

import (
	"encoding/pem"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTLSFlagsAndTheEnvironmentAddUp(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for _, path := range []string{cert, key} {
		if err := os.WriteFile(path, []byte("no PEM"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f := &fake{address: "127.0.0.1:1"}
	t.Setenv("IPCD_TLS_KEY", key)
	for says, args := range map[string][]string{
		"certificate " + cert + " with key " + key + ": failed to find any PEM data": {"info", "--tls-cert", cert},
		"authorities: open " + dir + "/ca.pem: no such file":                         {"info", "--tls-cert", cert, "--tls-ca", dir + "/ca.pem"},
		"certificate: open " + dir + "/none: no such file":                           {"info", "--tls-cert", dir + "/none", "--tls-key", "x"},
		"give both files, or neither":                                                {"info"},
		"TLS is for TCP":                                                             {"info", "--tls-cert", cert, "--address", "/run/x.sock"},
		"choose one":                                                                 {"info", "--tls-cert", cert, "--insecure"},
	} {
		if r := f.ctl(t, "", args...); r.exit != 2 || !strings.Contains(r.err, says) || strings.Count(r.err, "\n") != 1 {
			t.Errorf("%v: exit %d, stderr %q, want %q", args, r.exit, r.err, says)
		}
	}
}

func TestWrongTLSSaysWhatToDo(t *testing.T) {
	secure, plain := httptest.NewUnstartedServer(nil), httptest.NewServer(nil)
	secure.EnableHTTP2 = true
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	t.Cleanup(secure.Close)
	t.Cleanup(plain.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	at := &fake{address: secure.Listener.Addr().String()}
	r := at.ctl(t, "", "info", "--tls-server-name", "example.com")
	if r.exit != 5 || !strings.HasPrefix(r.err, "ipcctl: "+at.address+": the daemon's certificate is not signed by") || !strings.HasSuffix(r.err, "; see --tls-cert, --tls-key and --tls-ca\n") {
		t.Errorf("a foreign daemon: exit %d, %s", r.exit, r.err)
	}
	r = at.ctl(t, "", "info", "--tls-ca", ca, "--tls-server-name", "ipcd.example.org")
	if r.exit != 5 || !strings.Contains(r.err, "is not for ipcd.example.org") {
		t.Errorf("another name: exit %d, %s", r.exit, r.err)
	}
	r = at.ctl(t, "", "info", "--insecure")
	if r.exit != 4 || !strings.HasSuffix(r.err, "; does the daemon want TLS there?\n") {
		t.Errorf("plaintext to TLS: exit %d, %s", r.exit, r.err)
	}
	at = &fake{address: plain.Listener.Addr().String()}
	r = at.ctl(t, "", "info", "--tls-ca", ca)
	if r.exit != 4 || !strings.Contains(r.err, "does not speak TLS") || strings.Contains(r.err, "systemctl") {
		t.Errorf("plaintext: exit %d, %s", r.exit, r.err)
	}
}
