//go:build linux

package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"github.com/ipcd/ipcd/client"
)

// certificate is one with its key: of an authority, a daemon or a client.
type certificate struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// issue makes a certificate that is valid for an hour; without an authority it signs itself.
func issue(t *testing.T, by *certificate, edit func(*x509.Certificate)) *certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
	edit(template)
	parent, signer := template, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &certificate{cert, key}
}

func authority(t *testing.T, name string) *certificate {
	return issue(t, nil, func(c *x509.Certificate) {
		c.Subject, c.IsCA, c.BasicConstraintsValid, c.KeyUsage = pkix.Name{CommonName: name}, true, true, x509.KeyUsageCertSign
	})
}

// daemon issues the certificate of a daemon at 127.0.0.1.
func (a *certificate) daemon(t *testing.T) *certificate {
	return issue(t, a, func(c *x509.Certificate) {
		c.Subject, c.IPAddresses, c.ExtKeyUsage = pkix.Name{CommonName: "ipcd"}, []net.IP{net.IPv4(127, 0, 0, 1)}, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	})
}

// client issues the certificate of a client: with a SPIFFE ID if it is not empty, and as edit, which may be nil, says.
func (a *certificate) client(t *testing.T, spiffe string, edit func(*x509.Certificate)) *certificate {
	t.Helper()
	return issue(t, a, func(c *x509.Certificate) {
		c.Subject, c.ExtKeyUsage = pkix.Name{CommonName: "client", Organization: []string{"Works"}}, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		if spiffe != "" {
			id, err := url.Parse(spiffe)
			if err != nil {
				t.Fatal(err)
			}
			c.URIs = []*url.URL{id}
		}
		if edit != nil {
			edit(c)
		}
	})
}

// write writes the certificate and its key to DIR/NAME.pem and DIR/NAME.key.
func (a *certificate) write(t *testing.T, dir, name string) (cert, key string) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		t.Fatal(err)
	}
	cert = writeFile(t, filepath.Join(dir, name+".pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})))
	return cert, writeFile(t, filepath.Join(dir, name+".key"), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
}

// tlsDaemon is a daemon that serves TLS on TCP, and its files.
type tlsDaemon struct {
	*daemon
	dir     string
	clients *certificate // the clients' authority
	own     *certificate // the daemon's
}

// startTLS runs a daemon with TLS. lines are more of its configuration.
func startTLS(t *testing.T, lines ...string) *tlsDaemon {
	t.Helper()
	d := &tlsDaemon{dir: shortDir(t), clients: authority(t, "clients' authority")}
	d.own = authority(t, "daemon's authority")
	d.own.write(t, d.dir, "daemonca")
	d.clients.write(t, d.dir, "clientca")
	d.own.daemon(t).write(t, d.dir, "daemon")
	d.daemon = startIn(t, d.dir, "--insecure=false", "--config", d.configure(t, lines...))
	return d
}

// configure writes the configuration, with more lines than those about TLS.
func (d *tlsDaemon) configure(t *testing.T, lines ...string) string {
	t.Helper()
	return writeConfig(t, d.dir, append([]string{
		"tls:",
		"  cert: " + filepath.Join(d.dir, "daemon.pem"),
		"  key: " + filepath.Join(d.dir, "daemon.key"),
		"  client_ca: " + filepath.Join(d.dir, "clientca.pem"),
	}, lines...)...)
}

// files writes a client's certificate, and returns how the client connects with it; nil: with none.
func (d *tlsDaemon) files(t *testing.T, c *certificate) client.TLS {
	t.Helper()
	options := client.TLS{CAFile: filepath.Join(d.dir, "daemonca.pem")}
	if c != nil {
		options.CertFile, options.KeyFile = c.write(t, t.TempDir(), "client")
	}
	return options
}

// with returns a client that shows a certificate; nil: none.
func (d *tlsDaemon) with(t *testing.T, c *certificate) *client.Client {
	t.Helper()
	return dial(t, d.tcp, client.WithTLS(d.files(t, c)))
}

// ctlWithCertificate runs ipcctl over TLS.
func (d *tlsDaemon) ctlWithCertificate(t *testing.T, c *certificate, arguments ...string) result {
	t.Helper()
	f := d.files(t, c)
	flags := []string{"--address", d.tcp, "--tls-ca", f.CAFile}
	if c != nil {
		flags = append(flags, "--tls-cert", f.CertFile, "--tls-key", f.KeyFile)
	}
	return d.ctl(t, append(flags, arguments...)...)
}
