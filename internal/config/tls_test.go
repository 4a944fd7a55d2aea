package config

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// keyPair makes a self-signed certificate with its key, and returns both as PEM. It is valid for an hour from then on.
func keyPair(t *testing.T, from time.Time, usage ...x509.ExtKeyUsage) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: from, NotAfter: from.Add(time.Hour), IsCA: true, BasicConstraintsValid: true, ExtKeyUsage: usage}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})
}

// leafOf makes a certificate that is of no authority.
func leafOf(t *testing.T) []byte {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(2), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func TestFilesOfTLSAreChecked(t *testing.T) {
	cert, key := keyPair(t, time.Now())
	_, otherKey := keyPair(t, time.Now())
	leaf := leafOf(t)
	dir := t.TempDir()
	bundle := bytes.Repeat(cert, 400<<10/len(cert)) // more than a configuration file may have
	for name, text := range map[string][]byte{"leaf": leaf, "bundle": bundle, "cert": cert, "key": key, "other": otherKey, "ca": append(append([]byte("# ours\n"), cert...), cert...), "text": []byte("hello\n"),
		"broken": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("hello")})} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		cert, key, ca string
		say           []string
	}{
		{"cert", "key", "ca", nil},
		{"cert", "other", "ca", []string{"ipcd.yaml:3: tls.cert: ", "private key does not match"}},
		{"text", "key", "ca", []string{"ipcd.yaml:3: tls.cert: ", "/text"}},
		{"cert", "text", "ca", []string{"ipcd.yaml:3: tls.cert: ", "/text"}},
		{"none", "key", "ca", []string{"ipcd.yaml:3: tls.cert: ", "there is no such file"}},
		{"cert", "none", "none", []string{"ipcd.yaml:4: tls.key: ", "ipcd.yaml:5: tls.client_ca: ", "there is no such file"}},
		{"cert", "key", "key", []string{"ipcd.yaml:5: tls.client_ca: ", "PRIVATE KEY", "certificates only"}},
		{"cert", "key", "text", []string{"ipcd.yaml:5: tls.client_ca: ", "there is no certificate in it"}},
		{"cert", "key", "leaf", []string{"ipcd.yaml:5: tls.client_ca: ", "not of an authority"}},
		{"cert", "key", "bundle", nil},
		{"cert", "key", "text", []string{"ipcd.yaml:5: tls.client_ca: ", "there is no certificate in it"}},
		{"cert", "key", "broken", []string{"ipcd.yaml:5: tls.client_ca: ", "certificate 1 of it"}},
		{"cert", "key", ".", []string{"ipcd.yaml:5: tls.client_ca: ", "it is no file"}},
	} {
		c, err := loadText(t, fmt.Sprintf("listen: 0.0.0.0:7475\ntls:\n  cert: %[1]s/%[2]s\n  key: %[1]s/%[3]s\n  client_ca: %[1]s/%[4]s\n", dir, test.cert, test.key, test.ca))
		if err != nil {
			t.Fatal(err)
		}
		err = c.Check()
		if (err == nil) != (test.say == nil) {
			t.Errorf("%s, %s, %s: said %v", test.cert, test.key, test.ca, err)
			continue
		}
		for _, say := range test.say {
			if !strings.Contains(err.Error(), say) {
				t.Errorf("%s, %s, %s: said %v, want %q in it", test.cert, test.key, test.ca, err, say)
			}
		}
	}
}

func TestTLSNeedsAllOfItsFiles(t *testing.T) {
	for text, say := range map[string]string{
		"tls: {cert: /nowhere/c, key: /nowhere/k}":     "ipcd.yaml:1: tls: tls.client_ca is missing",
		"\ntls: {cert: /nowhere/c, client_ca: /x/k}":   "ipcd.yaml:2: tls: tls.key is missing",
		"tls: {users: {a: alice}}":                     "ipcd.yaml:1: tls: tls.cert is missing",
		"tls: {cert: c, key: /nowhere/k, client_ca: }": "tls.cert: \"c\": the path must be absolute",
	} {
		c := loaded(t, text)
		if err := c.Check(); err == nil || !strings.Contains(err.Error(), say) {
			t.Errorf("%q: said %v, want %q in it", text, err, say)
		}
	}
}

func TestCertificatesOfClientsAreNotForTheDaemon(t *testing.T) {
	for _, test := range []struct {
		usage []x509.ExtKeyUsage
		fine  bool
	}{
		{nil, true},
		{[]x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, true},
		{[]x509.ExtKeyUsage{x509.ExtKeyUsageAny}, true},
		{[]x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, false},
	} {
		cert, key := keyPair(t, time.Now(), test.usage...)
		dir := t.TempDir()
		for name, text := range map[string][]byte{"cert": cert, "key": key} {
			if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		c := loaded(t, fmt.Sprintf("tls:\n  cert: %[1]s/cert\n  key: %[1]s/key\n  client_ca: %[1]s/cert\n", dir))
		err := c.Check()
		if (err == nil) != test.fine || err != nil && !strings.Contains(err.Error(), "ipcd.yaml:2: tls.cert: "+dir+"/cert: the certificate is not for servers") {
			t.Errorf("%v: said %v", test.usage, err)
		}
	}
}

func TestCertificatesOutOfTimeAreWarnedOf(t *testing.T) {
	for say, from := range map[string]time.Time{"expired at ": time.Now().Add(-48 * time.Hour), "is not valid before ": time.Now().Add(48 * time.Hour), "": time.Now().Add(-time.Minute)} {
		cert, key := keyPair(t, from)
		dir := t.TempDir()
		for name, text := range map[string][]byte{"cert": cert, "key": key} {
			if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		c := loaded(t, fmt.Sprintf("tls:\n  cert: %[1]s/cert\n  key: %[1]s/key\n  client_ca: %[1]s/cert\n", dir))
		if err := c.Check(); err != nil {
			t.Fatal(err)
		}
		if warned := strings.Join(c.Warnings, "\n"); (warned == "") != (say == "") || !strings.Contains(warned, say) {
			t.Errorf("warned of %q, want %q", warned, say)
		}
	}
}
