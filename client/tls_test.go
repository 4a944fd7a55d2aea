package client

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// authority signs certificates for tests.
type authority struct {
	t    testing.TB
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB) *authority {
	a := &authority{t: t, dir: t.TempDir()}
	template := &x509.Certificate{Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	a.cert, a.key = a.sign(template)
	a.write("ca.pem", "CERTIFICATE", a.cert.Raw)
	return a
}

func (a *authority) file(name string) string { return filepath.Join(a.dir, name) }

func (a *authority) write(name, kind string, der []byte) {
	if err := os.WriteFile(a.file(name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
}

func (a *authority) sign(template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	if template.NotAfter.IsZero() {
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key
}

// issue writes NAME.pem and NAME.key, and returns them for a server.
func (a *authority) issue(name string, edit func(*x509.Certificate)) tls.Certificate {
	template := &x509.Certificate{Subject: pkix.Name{CommonName: name}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}}
	if edit != nil {
		edit(template)
	}
	cert, key := a.sign(template)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write(name+".pem", "CERTIFICATE", cert.Raw)
	a.write(name+".key", "PRIVATE KEY", der)
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}
}

// tls is what a client uses that has the certificate of that name.
func (a *authority) tls(name string) TLS {
	return TLS{CertFile: a.file(name + ".pem"), KeyFile: a.file(name + ".key"), CAFile: a.file("ca.pem")}
}

func forLoopback(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)} }

// tlsFake is a daemon over TLS that tells a caller the subject of its certificate.
type tlsFake struct {
	ipcdv1.UnimplementedSystemServiceServer
	net.Listener
	address string
	server  *grpc.Server
	latest  atomic.Pointer[net.Conn] // that was made
}

func (f *tlsFake) Accept() (net.Conn, error) {
	c, err := f.Listener.Accept()
	if err == nil {
		f.latest.Store(&c)
	}
	return c, err
}

// cut breaks the latest connection.
func (f *tlsFake) cut() { _ = (*f.latest.Load()).Close() }

func (f *tlsFake) GetInfo(ctx context.Context, _ *ipcdv1.GetInfoRequest) (*ipcdv1.GetInfoResponse, error) {
	p, _ := peer.FromContext(ctx)
	state := p.AuthInfo.(credentials.TLSInfo).State
	return &ipcdv1.GetInfoResponse{Caller: &ipcdv1.Caller{Kind: "certificate", Name: state.PeerCertificates[0].Subject.CommonName}}, nil
}

// serveTLS starts a daemon that takes clients of an authority, with a server certificate.
func serveTLS(t *testing.T, clients *authority, own tls.Certificate, edit func(*tls.Config), more ...func(*grpc.Server)) *tlsFake {
	config := &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{own}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: x509.NewCertPool()}
	config.ClientCAs.AddCert(clients.cert)
	if edit != nil {
		edit(config)
	}
	return serveMore(t, more, grpc.Creds(credentials.NewTLS(config)))
}

func serve(t *testing.T, options ...grpc.ServerOption) *tlsFake { return serveMore(t, nil, options...) }

// serveMore starts a daemon with more services.
func serveMore(t *testing.T, more []func(*grpc.Server), options ...grpc.ServerOption) *tlsFake {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &tlsFake{Listener: l, address: l.Addr().String(), server: grpc.NewServer(options...)}
	ipcdv1.RegisterSystemServiceServer(f.server, f)
	for _, register := range more {
		register(f.server)
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = f.server.Serve(f) }()
	t.Cleanup(func() { f.server.Stop(); <-done })
	return f
}

// who returns who the daemon takes the client for.
func who(t *testing.T, address string, options ...Option) (string, error) {
	t.Helper()
	c, err := Dial(address, options...)
	if err != nil {
		return "", err
	}
	defer c.Close()
	info, err := c.Info(t.Context())
	return info.Caller.Name, err
}

func TestTLSTellsTheDaemonWhoTheClientIs(t *testing.T) {
	a := newAuthority(t)
	f := serveTLS(t, a, a.issue("daemon", forLoopback), nil)
	a.issue("alice", nil)
	if name, err := who(t, f.address, WithTLS(a.tls("alice"))); name != "alice" || err != nil {
		t.Errorf("%q, %v", name, err)
	}
}

func TestTheEnvironmentGivesTLSWhereNothingElseIsSaid(t *testing.T) {
	a := newAuthority(t)
	f := serveTLS(t, a, a.issue("daemon", func(c *x509.Certificate) { c.DNSNames = []string{"ipcd.example.org"} }), nil)
	a.issue("bob", nil)
	a.issue("carol", nil)
	bob := a.tls("bob")
	t.Setenv("IPCD_TLS_CERT", bob.CertFile)
	t.Setenv("IPCD_TLS_KEY", bob.KeyFile)
	t.Setenv("IPCD_TLS_CA", bob.CAFile)
	t.Setenv("IPCD_TLS_SERVER_NAME", "ipcd.example.org")
	if name, err := who(t, f.address); name != "bob" || err != nil {
		t.Errorf("%q, %v", name, err)
	}
	carol := a.tls("carol")
	carol.ServerName = "ipcd.example.org"
	if name, err := who(t, f.address, WithTLS(carol)); name != "carol" || err != nil {
		t.Errorf("%q, %v", name, err)
	}
	if name, err := who(t, f.address, WithInsecure()); name != "" || !errors.Is(err, ErrUnreachable) {
		t.Errorf("plaintext: %q, %v", name, err)
	}
	c, err := Dial("unix:///run/x.sock")
	if err != nil {
		t.Fatalf("a unix socket: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func TestARenewedCertificateIsUsedByTheNextConnection(t *testing.T) {
	a := newAuthority(t)
	f := serveTLS(t, a, a.issue("daemon", forLoopback), nil)
	a.issue("client", nil)
	c, err := Dial(f.address, WithTLS(a.tls("client")))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ask := func() string {
		t.Helper()
		for { // the call that meets the broken connection may fail
			info, err := c.Info(t.Context())
			if err == nil {
				return info.Caller.Name
			}
			if !errors.Is(err, ErrUnreachable) {
				t.Fatal(err)
			}
			if err := c.awaitReady(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if name := ask(); name != "client" {
		t.Fatalf("%q", name)
	}
	a.issue("client", func(c *x509.Certificate) { c.Subject.CommonName = "renewed" })
	if name := ask(); name != "client" {
		t.Errorf("the connection there is became that of %q", name)
	}
	f.cut()
	if name := ask(); name != "renewed" {
		t.Errorf("%q", name)
	}
}

func TestWrongTLSIsNamed(t *testing.T) {
	a, other := newAuthority(t), newAuthority(t)
	own := a.issue("daemon", forLoopback)
	past := func(c *x509.Certificate) { forLoopback(c); c.NotAfter = time.Now().Add(-time.Minute) }
	a.issue("alice", nil)
	other.issue("mallory", nil)
	a.issue("late", past)
	a.issue("server-only", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })
	mallory := other.tls("mallory")
	mallory.CAFile = a.file("ca.pem")
	trustsOther := a.tls("alice")
	trustsOther.CAFile = other.file("ca.pem")
	nobody := TLS{CAFile: a.file("ca.pem")}
	elsewhere := a.tls("alice")
	elsewhere.ServerName = "ipcd.example.org"

	good := serveTLS(t, a, own, nil)
	old := serveTLS(t, a, own, func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 })
	expired := serveTLS(t, a, a.issue("expired", past), nil)
	plain := serve(t)
	for name, c := range map[string]struct {
		address string
		tls     TLS
		want    error
		says    string
	}{
		"the daemon's certificate is foreign":             {good.address, trustsOther, ErrUnauthenticated, "not signed by an authority in " + other.file("ca.pem")},
		"this host knows no such authority":               {good.address, TLS{CertFile: a.file("alice.pem"), KeyFile: a.file("alice.key")}, ErrUnauthenticated, "an authority that this host trusts"},
		"the daemon's certificate is for another name":    {good.address, elsewhere, ErrUnauthenticated, "not for ipcd.example.org"},
		"the daemon's certificate has expired":            {expired.address, a.tls("alice"), ErrUnauthenticated, "has expired"},
		"the daemon demands a certificate":                {good.address, nobody, ErrUnauthenticated, "demands a certificate"},
		"the client's certificate is foreign":             {good.address, mallory, ErrUnauthenticated, "does not accept the certificate in " + mallory.CertFile},
		"the client's certificate has expired":            {good.address, a.tls("late"), ErrUnauthenticated, "does not accept the certificate"},
		"the client's certificate is not one for clients": {good.address, a.tls("server-only"), ErrUnauthenticated, "does not accept the certificate"},
		"the daemon speaks plaintext":                     {plain.address, a.tls("alice"), ErrUnreachable, "does not speak TLS"},
		"the daemon speaks an older TLS":                  {old.address, a.tls("alice"), ErrUnreachable, "must be of TLS 1.3"},
	} {
		_, err := who(t, c.address, WithTLS(c.tls))
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), c.address) {
			t.Errorf("%s: %v, want %v that says %q", name, err, c.want, c.says)
		}
	}
	if _, err := who(t, good.address, WithInsecure()); !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "TLS") {
		t.Errorf("plaintext to a daemon that speaks TLS: %v", err)
	}
}

// A reset can overtake what the daemon said. Without a certificate it is plain what that was.
func TestSilenceOfADaemonThatWantsACertificateIsARefusal(t *testing.T) {
	nobody, alice := &handshaker{}, &handshaker{tls: TLS{CertFile: "alice.pem"}}
	for _, c := range []struct {
		h     *handshaker
		asked bool
		want  error
	}{{nobody, true, ErrUnauthenticated}, {nobody, false, ErrUnreachable}, {alice, true, ErrUnreachable}} {
		if err := c.h.explainSilence(syscall.ECONNRESET, c.asked); !errors.Is(err, c.want) {
			t.Errorf("certificate %q, asked %v: %v, want %v", c.h.tls.CertFile, c.asked, err, c.want)
		}
	}
}

func TestFilesThatCannotBeUsedAreFoundByDial(t *testing.T) {
	a := newAuthority(t)
	a.issue("alice", nil)
	a.issue("bob", nil)
	if err := os.WriteFile(a.file("text"), []byte("no PEM"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(a.file("huge"), make([]byte, pemBytesMax+1), 0o600); err != nil {
		t.Fatal(err)
	}
	edit := func(f func(*TLS)) TLS {
		v := a.tls("alice")
		f(&v)
		return v
	}
	for says, v := range map[string]TLS{
		"certificate: open " + a.file("none"):  edit(func(v *TLS) { v.CertFile = a.file("none") }),
		"private key: open " + a.file("none"):  edit(func(v *TLS) { v.KeyFile = a.file("none") }),
		"authorities: open " + a.file("none"):  edit(func(v *TLS) { v.CAFile = a.file("none") }),
		"private key does not match":           edit(func(v *TLS) { v.KeyFile = a.file("bob.key") }),
		"no certificate of an authority is in": edit(func(v *TLS) { v.CAFile = a.file("text") }),
		"failed to find any PEM data":          edit(func(v *TLS) { v.CertFile = a.file("text") }),
		"larger than":                          edit(func(v *TLS) { v.CertFile = a.file("huge") }),
		"give both files":                      edit(func(v *TLS) { v.KeyFile = "" }),
	} {
		if _, err := Dial("127.0.0.1:7000", WithTLS(v)); !errors.Is(err, ErrInvalidArgument) || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want ErrInvalidArgument that says %q", err, says)
		}
	}
	for says, options := range map[string][]Option{
		"choose one": {WithTLS(a.tls("alice")), WithInsecure()},
		"WithDialer": {WithTLS(a.tls("alice")), WithDialer(func(context.Context) (net.Conn, error) { return nil, io.EOF })},
	} {
		if _, err := Dial("127.0.0.1:7000", options...); !errors.Is(err, ErrInvalidArgument) || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want ErrInvalidArgument that says %q", err, says)
		}
	}
	if _, err := Dial("unix:///run/x.sock", WithTLS(a.tls("alice"))); !errors.Is(err, ErrInvalidArgument) || !strings.Contains(err.Error(), "TLS is for TCP") {
		t.Errorf("%v", err)
	}
}

// consumed is a daemon that delivers one message to each consumer.
type consumed struct {
	ipcdv1.UnimplementedMessageServiceServer
}

func (consumed) Consume(stream grpc.BidiStreamingServer[ipcdv1.ConsumeRequest, ipcdv1.ConsumeResponse]) error {
	_ = stream.Send(&ipcdv1.ConsumeResponse{Kind: &ipcdv1.ConsumeResponse_Opened{Opened: &ipcdv1.ConsumeOpened{}}})
	_ = stream.Send(&ipcdv1.ConsumeResponse{Kind: &ipcdv1.ConsumeResponse_Deliveries{Deliveries: &ipcdv1.Deliveries{
		FirstTag: 1, Deliveries: []*ipcdv1.Delivery{{Message: &ipcdv1.Message{Type: 1}}}}}})
	<-stream.Context().Done()
	return nil
}

func TestConsumeEndsWhenItsCertificateIsAcceptedNoMore(t *testing.T) {
	a, other := newAuthority(t), newAuthority(t)
	var refuse atomic.Bool
	f := serveTLS(t, a, a.issue("daemon", forLoopback), func(c *tls.Config) {
		foreign := c.Clone()
		foreign.ClientCAs = x509.NewCertPool()
		foreign.ClientCAs.AddCert(other.cert)
		foreign.NextProtos = []string{"h2"}
		c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
			if refuse.Load() {
				return foreign, nil
			}
			return nil, nil
		}
	}, func(s *grpc.Server) { ipcdv1.RegisterMessageServiceServer(s, consumed{}) })
	a.issue("client", nil)
	c, err := Dial(f.address, WithTLS(a.tls("client")))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ended, delivered := make(chan error, 1), make(chan struct{}, 1)
	go func() {
		ended <- c.Queue("/jobs").Consume(t.Context(), func(context.Context, *Delivery) error {
			delivered <- struct{}{}
			return nil
		}, ConsumeOptions{AtOnce: true})
	}()
	<-delivered
	f.cut() // which it outlives
	<-delivered
	refuse.Store(true)
	f.cut()
	if err := <-ended; !errors.Is(err, ErrUnauthenticated) {
		t.Errorf("it ended with %v", err)
	}
}
