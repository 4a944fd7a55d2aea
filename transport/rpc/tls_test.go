package rpc

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/ipcd/ipcd/internal/access"
	"github.com/ipcd/ipcd/internal/identity"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// tlsHarness is a Server with TLS on TCP.
type tlsHarness struct {
	*harness
	t       *testing.T
	tls     *TLS
	files   TLSConfig
	daemon  authority // signs the daemon's certificate
	clients authority // signs clients'
	clock   atomic.Int64
}

func serveTLS(t *testing.T, o Options, users map[string]identity.Identity) *tlsHarness {
	t.Helper()
	h := &tlsHarness{t: t, daemon: newAuthority(t, "daemon's authority"), clients: newAuthority(t, "clients' authority")}
	h.files = writeTLS(t, h.daemon.server(t), h.clients.cert)
	h.files.Users = users
	var err error
	if h.tls, err = NewTLS(h.files); err != nil {
		t.Fatal(err)
	}
	h.tls.now = func() time.Time { return time.Now().Add(time.Duration(h.clock.Load())) }
	h.tls.recheck = 5 * time.Millisecond
	if _, err := h.tls.Reload(h.files); err != nil { // with that clock
		t.Fatal(err)
	}
	o.TLS = h.tls
	if o.Broker == nil {
		o.Broker = &fakeBroker{}
	}
	h.harness = serveOptions(t, o)
	return h
}

// config is a client's that trusts the daemon.
func (h *tlsHarness) config(certs ...tls.Certificate) *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(h.daemon.cert)
	return &tls.Config{RootCAs: roots, Certificates: certs}
}

func (h *tlsHarness) dial(c *tls.Config) *grpc.ClientConn {
	h.t.Helper()
	conn, err := grpc.NewClient(h.tcp.Target(), grpc.WithTransportCredentials(credentials.NewTLS(c)))
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { conn.Close() })
	return conn
}

// whoIs returns how the daemon sees a client.
func whoIs(t *testing.T, conn grpc.ClientConnInterface) (*ipcdv1.Caller, error) {
	t.Helper()
	info, err := ipcdv1.NewSystemServiceClient(conn).GetInfo(t.Context(), &ipcdv1.GetInfoRequest{})
	return info.GetCaller(), err
}

// eventually waits until something has happened that nobody tells of.
func eventually(t *testing.T, what string, happened func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !happened(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("still not so: %s", what)
		}
	}
}

// logged waits until the log has a message whose why contains a text.
func (h *tlsHarness) logged(message, why string) {
	h.t.Helper()
	eventually(h.t, "the log has "+message+": "+why, func() bool {
		for _, entry := range h.logs.FilterMessageSnippet(message).All() {
			if text, _ := entry.ContextMap()["why"].(string); strings.Contains(text, why) {
				return true
			}
		}
		return false
	})
}

func TestCertificateSaysWhoCalls(t *testing.T) {
	users := map[string]identity.Identity{
		"spiffe://works/mapped": {Kind: identity.Unix, UID: 4711, GID: 4712, Groups: []uint32{4713}},
		"CN=admin":              {UID: 4714, GID: 9},
	}
	h := serveTLS(t, Options{Access: access.New(access.Policy{DaemonUID: 4715, AdminGroups: []uint32{9}}, nil)}, users)
	type want struct {
		name   string
		mapped bool
		admin  bool
	}
	for _, c := range []struct {
		what string
		edit func(*x509.Certificate)
		want want
	}{
		{"a subject alone", func(c *x509.Certificate) { c.Subject = pkix.Name{CommonName: "a,b", Organization: []string{"Works"}} }, want{name: `CN=a\,b,O=Works`}},
		{"a SPIFFE ID before the subject", func(c *x509.Certificate) { c.URIs = []*url.URL{spiffe(t, "spiffe://works/x")} }, want{name: "spiffe://works/x"}},
		{"another URI", func(c *x509.Certificate) { c.URIs = []*url.URL{spiffe(t, "https://works/x")} }, want{name: "CN=client,O=Works"}},
		{"two other URIs", func(c *x509.Certificate) {
			c.URIs = []*url.URL{spiffe(t, "https://works/x"), spiffe(t, "https://works/y")}
		}, want{name: "CN=client,O=Works"}},
		{"no subject", func(c *x509.Certificate) { c.Subject = pkix.Name{}; c.URIs = []*url.URL{spiffe(t, "spiffe://works/x")} }, want{name: "spiffe://works/x"}},
		{"a user's", func(c *x509.Certificate) { c.URIs = []*url.URL{spiffe(t, "spiffe://works/mapped")} }, want{name: "spiffe://works/mapped", mapped: true}},
		{"an admin's", func(c *x509.Certificate) { c.Subject = pkix.Name{CommonName: "admin"} }, want{name: "CN=admin", mapped: true, admin: true}},
	} {
		who, err := whoIs(t, h.dial(h.config(h.clients.client(t, c.edit).tls())))
		if err != nil {
			t.Errorf("%s: %v", c.what, err)
			continue
		}
		if got := (want{who.Name, who.Uid != nil, who.Admin}); got != c.want || who.Kind != "certificate" {
			t.Errorf("%s: %v, want %+v", c.what, who, c.want)
		}
		if c.want.name == "spiffe://works/mapped" && (who.GetUid() != 4711 || who.GetGid() != 4712 || len(who.Groups) != 1) {
			t.Errorf("%s acts as %v", c.what, who)
		}
	}
	if who, err := whoIs(t, h.unix); err != nil || who.Kind != "unix" {
		t.Errorf("over the unix socket: %v, %v", who, err)
	}
}

func TestStrangersAreTurnedAway(t *testing.T) {
	h := serveTLS(t, Options{}, nil)
	foreign := newAuthority(t, "clients' authority") // of the same name
	ok := h.clients.client(t, nil)
	for _, c := range []struct {
		what   string
		config *tls.Config
		why    string
	}{
		{"no certificate", h.config(), "didn't provide a certificate"},
		{"expired", h.config(h.clients.client(t, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }).tls()), "expired"},
		{"not yet valid", h.config(h.clients.client(t, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(30 * time.Minute) }).tls()), "not yet valid"},
		{"foreign authority", h.config(foreign.client(t, nil).tls()), "unknown authority"},
		{"self-signed", h.config(certificate(t, nil, nil).tls()), "unknown authority"},
		{"a server's certificate", h.config(h.clients.client(t, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }).tls()), "key usage"},
		{"nameless", h.config(h.clients.client(t, func(c *x509.Certificate) { c.Subject = pkix.Name{} }).tls()), "neither a SPIFFE ID nor a subject"},
		{"name too long", h.config(h.clients.client(t, func(c *x509.Certificate) { c.Subject.CommonName = strings.Repeat("x", 2000) }).tls()), "may have 1024"},
		{"TLS 1.2", &tls.Config{RootCAs: h.config().RootCAs, Certificates: []tls.Certificate{ok.tls()}, MaxVersion: tls.VersionTLS12}, "version"},
	} {
		// A client shows a certificate that the server does not ask for only if told to.
		if len(c.config.Certificates) > 0 {
			shown := c.config.Certificates[0]
			c.config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &shown, nil }
		}
		if who, err := whoIs(t, h.dial(c.config)); status.Code(err) != codes.Unavailable {
			t.Errorf("%s: %v, %v; want UNAVAILABLE", c.what, who, err)
		}
		h.logged("TLS handshake failed", c.why)
	}
	if _, err := whoIs(t, h.tcp); status.Code(err) != codes.Unavailable {
		t.Errorf("plain text: %v", err)
	}
	h.logged("TLS handshake failed", "does not speak TLS")
	if who, err := whoIs(t, h.dial(h.config(ok.tls()))); err != nil || who.Name != "CN=client,O=Works" {
		t.Errorf("after all those: %v, %v", who, err)
	}
	eventually(t, "nothing is left of them", func() bool { return h.server.Connections()["tcp"] == 1 })
}

func TestConnectionEndsWithItsCertificate(t *testing.T) {
	h := serveTLS(t, Options{}, nil)
	short := h.clients.client(t, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(10 * time.Minute) })
	conn, lasting := h.dial(h.config(short.tls())), h.dial(h.config(h.clients.client(t, nil).tls()))
	for _, c := range []*grpc.ClientConn{conn, lasting} {
		if _, err := whoIs(t, c); err != nil {
			t.Fatal(err)
		}
	}
	h.clock.Store(int64(11 * time.Minute))
	if !conn.WaitForStateChange(t.Context(), connectivity.Ready) {
		t.Fatal("the connection outlives its certificate")
	}
	h.logged("TLS connection closed", "expired")
	if _, err := whoIs(t, conn); status.Code(err) != codes.Unavailable {
		t.Errorf("again with an expired certificate: %v", err)
	}
	eventually(t, "one connection is left", func() bool { return h.server.Connections()["tcp"] == 1 })
	if lasting.GetState() != connectivity.Ready {
		t.Errorf("the other connection is %v", lasting.GetState())
	}
}

func TestReloadShowsAnotherCertificate(t *testing.T) {
	h := serveTLS(t, Options{}, nil)
	cert := h.clients.client(t, nil).tls()
	before := h.dial(h.config(cert))
	if _, err := whoIs(t, before); err != nil {
		t.Fatal(err)
	}
	own := h.daemon.server(t)
	if err := os.WriteFile(h.files.Cert, certPEM(own.cert), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := h.tls.Reload(h.files); err == nil || !strings.Contains(err.Error(), h.files.Key) {
		t.Fatalf("a certificate without its key: %v; want an error that names the key", err)
	}
	shown := func() string {
		conn, err := tls.Dial("tcp", h.tcp.Target(), h.config(cert))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	if shown() == own.cert.SerialNumber.String() {
		t.Error("a failed reload changed the certificate")
	}
	if err := os.WriteFile(h.files.Key, own.keyPEM(t), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := h.tls.Reload(h.files); err != nil {
		t.Fatal(err)
	}
	if got := shown(); got != own.cert.SerialNumber.String() {
		t.Errorf("after the reload the certificate is still the old one")
	}
	if before.GetState() != connectivity.Ready {
		t.Error("the reload disturbed a connection that may stay")
	}
}

func TestReloadEndsWhatMayNotStay(t *testing.T) {
	named := func(name string) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.Subject = pkix.Name{CommonName: name} }
	}
	users := map[string]identity.Identity{"CN=moved": {UID: 7, GID: 7}, "CN=same": {UID: 8, GID: 8, Groups: []uint32{9}}}
	h := serveTLS(t, Options{}, users)
	other := newAuthority(t, "another authority")
	conns := map[string]*grpc.ClientConn{}
	for _, name := range []string{"moved", "same", "unmapped", "newly mapped"} {
		conns[name] = h.dial(h.config(h.clients.client(t, named(name)).tls()))
		if _, err := whoIs(t, conns[name]); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	// Both authorities, and other users.
	h.files.Users = map[string]identity.Identity{"CN=moved": {UID: 70, GID: 7}, "CN=same": {UID: 8, GID: 8, Groups: []uint32{9}}, "CN=newly mapped": {UID: 10}}
	if err := os.WriteFile(h.files.ClientCA, certPEM(h.clients.cert, other.cert), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := h.tls.Reload(h.files); err != nil {
		t.Fatal(err)
	}
	for name, ends := range map[string]bool{"moved": true, "newly mapped": true, "same": false, "unmapped": false} {
		if ends && !conns[name].WaitForStateChange(t.Context(), connectivity.Ready) {
			t.Errorf("%s: still connected", name)
		}
		who, err := whoIs(t, conns[name])
		if err != nil || who.Name != "CN="+name || name == "moved" && who.GetUid() != 70 {
			t.Errorf("%s connects again: %v, %v", name, who, err)
		}
	}
	if n := h.logs.FilterMessageSnippet("TLS connection closed").Len(); n != 2 {
		t.Errorf("%d connections closed, want 2", n)
	}
	// The other authority alone.
	if err := os.WriteFile(h.files.ClientCA, certPEM(other.cert), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := h.tls.Reload(h.files); err != nil {
		t.Fatal(err)
	}
	for name, conn := range conns {
		if _, err := whoIs(t, conn); status.Code(err) != codes.Unavailable {
			t.Errorf("%s of an authority that is gone: %v", name, err)
		}
	}
	if _, err := whoIs(t, h.dial(h.config(other.client(t, nil).tls()))); err != nil {
		t.Errorf("of the new authority: %v", err)
	}
}

func TestTLSFilesAreRefusedWithTheReason(t *testing.T) {
	ca, other := newAuthority(t, "ca"), newAuthority(t, "other")
	own := ca.server(t)
	good := writeTLS(t, own, ca.cert)
	write := func(text string) string {
		name := writeTLS(t, own, ca.cert).ClientCA
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	for _, c := range []struct {
		edit func(*TLSConfig)
		want string
	}{
		{func(c *TLSConfig) { c.Cert = "" }, "no file is named"},
		{func(c *TLSConfig) { c.Key = good.Key + ".not" }, "there is no such file"},
		{func(c *TLSConfig) { c.Key = writeTLS(t, other.server(t), ca.cert).Key }, "does not match"},
		{func(c *TLSConfig) { c.Cert = write("nonsense") }, "failed to find any PEM data"},
		{func(c *TLSConfig) { c.ClientCA = write("nonsense") }, "there is no certificate in it"},
		{func(c *TLSConfig) { c.ClientCA = write(string(certPEM(ca.cert)) + string(own.keyPEM(t))) }, "PRIVATE KEY"},
		{func(c *TLSConfig) { c.ClientCA = write(string(certPEM(ca.cert, own.cert))) }, "not of an authority"},
		{func(c *TLSConfig) {
			c.ClientCA = write("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
		}, "certificate 1"},
		{func(c *TLSConfig) { c.ClientCA = write(strings.Repeat("x", 2<<20)) }, "more than 1048576 bytes"},
		{func(c *TLSConfig) { c.ClientCA = "/dev/zero" }, "more than 1048576 bytes"},
	} {
		files := good
		c.edit(&files)
		if _, err := NewTLS(files); err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "TLS ") {
			t.Errorf("got %v, want %q", err, c.want)
		}
	}
	if _, err := NewTLS(good); err != nil {
		t.Errorf("the good ones: %v", err)
	}
}

func TestReloadTellsWhetherAnythingIsOther(t *testing.T) {
	ca, other := newAuthority(t, "ca"), newAuthority(t, "other")
	files := writeTLS(t, ca.server(t), ca.cert)
	files.Users = map[string]identity.Identity{"CN=a": {UID: 7, Groups: []uint32{8}}}
	loaded, err := NewTLS(files)
	if err != nil {
		t.Fatal(err)
	}
	put := func(from TLSConfig) {
		for to, name := range map[string]string{files.Cert: from.Cert, files.Key: from.Key, files.ClientCA: from.ClientCA} {
			text, err := os.ReadFile(name)
			if err == nil {
				err = os.WriteFile(to, text, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range []struct {
		what string
		make func()
	}{
		{"a new certificate under the same name", func() { put(writeTLS(t, ca.server(t), ca.cert)) }},
		{"another authority", func() { put(TLSConfig{files.Cert, files.Key, writeTLS(t, ca.server(t), other.cert).ClientCA, nil}) }},
		{"one authority more", func() {
			put(TLSConfig{files.Cert, files.Key, writeTLS(t, ca.server(t), other.cert, ca.cert).ClientCA, nil})
		}},
		{"another user", func() { files.Users = map[string]identity.Identity{"CN=a": {UID: 9}} }},
		{"another name", func() { files.Users = map[string]identity.Identity{"CN=b": {UID: 9}} }},
		{"no users", func() { files.Users = nil }},
	} {
		c.make()
		if changed, err := loaded.Reload(files); !changed || err != nil {
			t.Errorf("%s: %v, %v", c.what, changed, err)
		}
		if changed, err := loaded.Reload(files); changed || err != nil {
			t.Errorf("nothing after %s: %v, %v", c.what, changed, err)
		}
	}
	if err := os.WriteFile(files.Key, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if changed, err := loaded.Reload(files); changed || err == nil {
		t.Errorf("of a file that can not be used: %v, %v", changed, err)
	}
}
