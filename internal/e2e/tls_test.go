//go:build linux

package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ipcd/ipcd/client"
)

// The users as whom certificates act. Every host has them.
const (
	mappedUser  = "nobody"
	mappedAdmin = "daemon"
)

const (
	workerID  = "spiffe://example.org/worker"
	ownerID   = "spiffe://example.org/owner"
	adminID   = "spiffe://example.org/admin"
	mappings  = "  users: {'" + ownerID + "': " + mappedUser + ", '" + adminID + "': " + mappedAdmin + "}"
	adminRule = "admin_group: " + mappedAdmin
	workRule  = "rules:\n- {queues: ['work*'], certificates: ['spiffe://example.org/work*', 'CN=plain,O=Works'], allow: [send, receive]}"
)

// uidOf returns a user's uid and gid.
func uidOf(t *testing.T, name string) (uid, gid string) {
	t.Helper()
	u, err := user.Lookup(name)
	if err != nil {
		t.Skipf("this host has no user %s: %v", name, err)
	}
	return u.Uid, u.Gid
}

func TestCertificateHasWhatRulesGrantIt(t *testing.T) {
	t.Parallel()
	d := startTLS(t, workRule)
	for _, name := range []string{"/work.a", "/other"} {
		createNamed(t, d.dial(t), name, memory(func(s *client.QueueSettings) { s.Mode = new(uint32(0o666)) }))
	}
	plain := d.clients.client(t, "", func(c *x509.Certificate) { c.Subject.CommonName = "plain" })
	for _, c := range []struct {
		certificate *certificate
		name        string
		may         bool
	}{
		{d.clients.client(t, workerID, nil), workerID, true},
		{d.clients.client(t, "spiffe://example.org/work/deeper", nil), "spiffe://example.org/work/deeper", false}, // * does not cross a slash
		{d.clients.client(t, "spiffe://example.com/worker", nil), "spiffe://example.com/worker", false},
		{plain, "CN=plain,O=Works", true},
		{d.clients.client(t, "", nil), "CN=client,O=Works", false},
	} {
		conn := d.with(t, c.certificate)
		about, err := conn.Info(within(t))
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if who := about.Caller; who.Kind != "certificate" || who.Name != c.name || who.User || who.Admin {
			t.Errorf("%s is seen as %+v", c.name, who)
		}
		q := conn.Queue("/work.a")
		_, err = q.Send(within(t), text("m")...)
		allowed(t, c.name+" sends", err, c.may)
		_, err = q.Receive(within(t), 1, client.ReceiveOptions{AtOnce: true})
		allowed(t, c.name+" receives", err, c.may)
		_, err = conn.PauseQueue(within(t), "/work.a")
		allowed(t, c.name+" pauses", err, false)
		_, err = conn.Queue("/other").Info(within(t)) // a mode says nothing of who is no local user
		allowed(t, c.name+" looks elsewhere", err, false)
		_, err = conn.CreateQueue(within(t), "/work.b", memory())
		allowed(t, c.name+" creates a queue", err, false)
		_, err = conn.CreateRing(within(t), "/work.b", client.RingSettings{})
		allowed(t, c.name+" creates a ring", err, false)
		_, err = conn.Reload(within(t))
		allowed(t, c.name+" reloads", err, false)
	}
	d.ctlWithCertificate(t, plain, "send", "/work.a", "from the shell").ok(t)
	d.ctlWithCertificate(t, plain, "stat", "/other").exits(t, 5).says(t, "CN=plain,O=Works", "may not")
	if log := d.log.String(); !strings.Contains(log, "access denied") || !strings.Contains(log, "spiffe://example.org/worker") {
		t.Error("the log does not say who was denied")
	}
}

func TestCertificateActsAsTheUserItIsMappedTo(t *testing.T) {
	t.Parallel()
	needsRoot(t)
	uid, gid := uidOf(t, mappedUser)
	uidOf(t, mappedAdmin)
	d := startTLS(t, mappings, adminRule)
	createNamed(t, d.dial(t), "/private", memory())

	owner := d.clients.client(t, ownerID, nil)
	d.ctlWithCertificate(t, owner, "create", "/mine", "--mqueue", "none").ok(t)
	if got := d.ctl(t, "stat", "/mine", "-o", "json").ok(t); !strings.Contains(got, `"owner_uid":`+uid) || !strings.Contains(got, `"group_gid":`+gid) {
		t.Errorf("what the certificate of %s created has not uid %s and gid %s: %s", mappedUser, uid, gid, got)
	}
	d.ctlWithCertificate(t, owner, "stat", "/private").exits(t, 5).says(t, ownerID, "uid "+uid)
	d.ctlWithCertificate(t, owner, "reload").exits(t, 5)
	used := d.ctl(t, "quota", "ls", "--user", uid, "-o", "json").ok(t)
	if !strings.Contains(used, `"resource":"queues","used":1`) {
		t.Errorf("the queue is not charged to uid %s: %s", uid, used)
	}

	admin := d.clients.client(t, adminID, nil)
	d.ctlWithCertificate(t, admin, "stat", "/private").ok(t)
	d.ctlWithCertificate(t, admin, "reload").ok(t)

	// What is mapped to another user, or to none, acts as that from the reload on: connections that act otherwise end.
	conn := d.with(t, owner)
	if _, err := conn.Queue("/mine").Info(within(t)); err != nil {
		t.Fatal(err)
	}
	d.configure(t, "  users: {}", adminRule)
	d.ctl(t, "reload").ok(t)
	d.log.await(t, d.daemon, "TLS connection closed")
	_, err := conn.Queue("/mine").Info(within(t))
	allowed(t, "the owner's certificate, which acts as nobody any more", err, false)
}

func TestWhoCannotBeTrustedIsToldWhy(t *testing.T) {
	t.Parallel()
	d := startTLS(t)
	foreign := authority(t, "foreign authority")
	past := func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
	}
	for name, c := range map[string]struct {
		certificate *certificate
		log         string
	}{
		"none":              {nil, "didn't provide a certificate"},
		"expired":           {d.clients.client(t, workerID, past), "expired"},
		"of the future":     {d.clients.client(t, workerID, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(30 * time.Minute) }), "not yet valid"},
		"foreign":           {foreign.client(t, workerID, nil), "unknown authority"},
		"self-signed":       {issue(t, nil, func(c *x509.Certificate) { c.Subject = d.clients.cert.Subject }), "unknown authority"},
		"not for clients":   {d.clients.daemon(t), "incompatible key usage"},
		"of nobody by name": {d.clients.client(t, "", func(c *x509.Certificate) { c.Subject.CommonName, c.Subject.Organization = "", nil }), "neither a SPIFFE ID nor a subject"},
	} {
		t.Run(name, func(t *testing.T) {
			r := d.ctlWithCertificate(t, c.certificate, "info").exits(t, 5)
			if c.certificate == nil {
				r.says(t, "demands a certificate", "--tls-cert")
			} else {
				r.says(t, "does not accept the certificate", "--tls-cert")
			}
			d.log.await(t, d.daemon, c.log)
		})
	}
	d.ctlWithCertificate(t, d.clients.client(t, workerID, nil), "info").ok(t) // who can be trusted is served all the while
}

// Of what strangers do, a few lines a second are logged: so this is another daemon than above.
func TestWhoSpeaksOtherwiseIsToldWhy(t *testing.T) {
	t.Parallel()
	d := startTLS(t)
	foreign := authority(t, "foreign authority")
	t.Run("TLS 1.2", func(t *testing.T) {
		_, err := d.handshake(t, d.clients.client(t, workerID, nil), tls.VersionTLS12)
		if err == nil || !strings.Contains(err.Error(), "protocol version") {
			t.Errorf("TLS 1.2: %v, want it refused by its version", err)
		}
		d.log.await(t, d.daemon, "client offered only unsupported versions")
	})
	t.Run("the daemon's is foreign", func(t *testing.T) {
		f := d.files(t, d.clients.client(t, workerID, nil))
		ca, _ := foreign.write(t, t.TempDir(), "ca")
		d.ctl(t, "--address", d.tcp, "--tls-ca", ca, "--tls-cert", f.CertFile, "--tls-key", f.KeyFile, "info").exits(t, 5).says(t, "not signed by", ca)
	})
	t.Run("another name", func(t *testing.T) {
		d.ctlWithCertificate(t, d.clients.client(t, workerID, nil), "--tls-server-name", "example.org", "info").exits(t, 5).says(t, "example.org")
	})
	t.Run("plain text", func(t *testing.T) {
		d.ctl(t, "--address", d.tcp, "--insecure", "info").exits(t, 4).says(t, "TLS")
		d.log.await(t, d.daemon, "does not speak TLS")
	})
	t.Run("nothing said of TLS", func(t *testing.T) {
		d.ctl(t, "--address", d.tcp, "info").exits(t, 2).says(t, "TCP needs TLS", "IPCD_TLS_CERT")
	})
}

// handshake connects by TLS of a version at most, and returns the daemon's certificate once it has taken the client's.
func (d *tlsDaemon) handshake(t *testing.T, c *certificate, version uint16) (*x509.Certificate, error) {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(d.own.cert)
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: patience}, "tcp", d.tcp, &tls.Config{
		RootCAs: roots, MaxVersion: version, NextProtos: []string{"h2"},
		Certificates: []tls.Certificate{{Certificate: [][]byte{c.cert.Raw}, PrivateKey: c.key}},
	})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	_, err = conn.Read(make([]byte, 1)) // the daemon speaks first, with its settings
	return conn.ConnectionState().PeerCertificates[0], err
}

// connected returns the numbers of the connections at a door.
func (d *daemon) connected(t *testing.T, door string) (ids []uint64) {
	t.Helper()
	for c, err := range d.dial(t).Clients(within(t)) {
		if err != nil {
			t.Fatal(err)
		}
		if c.Door == door {
			ids = append(ids, c.ID)
		}
	}
	return ids
}

func TestRenewedCertificateIsShownAfterAReload(t *testing.T) {
	t.Parallel()
	d := startTLS(t, workRule)
	createNamed(t, d.dial(t), "/work", memory())
	worker := d.clients.client(t, workerID, nil)
	conn := d.with(t, worker)
	if _, err := conn.Info(within(t)); err != nil {
		t.Fatal(err)
	}
	before := d.connected(t, "tcp")
	first, err := d.handshake(t, worker, tls.VersionTLS13)
	if err != nil {
		t.Fatal(err)
	}

	next := d.own.daemon(t)
	next.write(t, d.dir, "daemon")
	if got, err := d.handshake(t, worker, tls.VersionTLS13); err != nil || !got.Equal(first) {
		t.Errorf("the renewed certificate is used before the reload, or none is: %v", err)
	}
	d.ctl(t, "reload").ok(t)
	if got, err := d.handshake(t, worker, tls.VersionTLS13); err != nil || !got.Equal(next.cert) {
		t.Errorf("after the reload another certificate than the renewed one is used: %v", err)
	}
	if _, err := conn.Queue("/work").Send(within(t), text("m")...); err != nil {
		t.Errorf("a good connection over the reload: %v", err)
	}
	if now := d.connected(t, "tcp"); len(before) != 1 || len(now) != 1 || now[0] != before[0] {
		t.Errorf("connections before the reload: %v, after it: %v", before, now)
	}

	// Files that do not fit each other change nothing.
	d.own.daemon(t).write(t, d.dir, "other")
	writeConfig(t, d.dir, "tls: {cert: "+filepath.Join(d.dir, "other.pem")+", key: "+filepath.Join(d.dir, "daemon.key")+", client_ca: "+filepath.Join(d.dir, "clientca.pem")+"}")
	d.ctl(t, "reload").exits(t, 1).says(t, "ipcd.yaml:1", "tls.cert", "nothing has changed")
	if got, err := d.handshake(t, worker, tls.VersionTLS13); err != nil || !got.Equal(next.cert) {
		t.Errorf("after the reload that failed: %v", err)
	}
	if _, err := conn.Queue("/work").Send(within(t), text("m")...); err != nil {
		t.Errorf("after the reload that failed the rules are others: %v", err)
	}
}

func TestExchangedAuthorityEndsTheConnectionsOfTheOldOne(t *testing.T) {
	t.Parallel()
	d := startTLS(t, workRule)
	createNamed(t, d.dial(t), "/work", memory())
	files := d.files(t, d.clients.client(t, workerID, nil))
	conn := dial(t, d.tcp, client.WithTLS(files))
	ctx, stop := context.WithCancel(within(t))
	ended, came := make(chan error, 1), make(chan string, 1)
	consume := func() error {
		return conn.Queue("/work").Consume(ctx, func(_ context.Context, m *client.Delivery) error {
			came <- string(m.Body)
			return nil
		}, client.ConsumeOptions{})
	}
	go func() { ended <- consume() }()
	awaitStats(t, d.dial(t).Queue("/work"), "it consumes", func(s client.QueueStats) bool { return s.Receivers == 1 })

	d.clients = authority(t, "another authority")
	d.clients.write(t, d.dir, "clientca")
	d.ctl(t, "reload").ok(t)
	d.log.await(t, d.daemon, "TLS connection closed")
	awaitStats(t, d.dial(t).Queue("/work"), "nobody consumes", func(s client.QueueStats) bool { return s.Receivers == 0 })
	d.ctl(t, "--address", d.tcp, "--tls-ca", files.CAFile, "--tls-cert", files.CertFile, "--tls-key", files.KeyFile, "info").exits(t, 5)
	if _, err := conn.Info(within(t)); !errors.Is(err, client.ErrUnauthenticated) {
		t.Errorf("a call with a certificate of the old authority: %v, want UNAUTHENTICATED", err)
	}

	if err := <-ended; !errors.Is(err, client.ErrUnauthenticated) {
		t.Errorf("the consumer ended with %v, want UNAUTHENTICATED", err)
	}

	// Its files are read for each connection: with a certificate of the new authority in them it goes on.
	d.clients.client(t, workerID, nil).write(t, filepath.Dir(files.CertFile), "client")
	eventually(t, "the new certificate is used", func() bool { // gRPC waits a moment between attempts to connect
		_, err := conn.Info(within(t))
		return err == nil
	})
	go func() { ended <- consume() }()
	send(t, d.dial(t).Queue("/work"), text("m")...)
	select {
	case m := <-came:
		if m != "m" {
			t.Errorf("received %q", m)
		}
	case <-time.After(patience):
		t.Error("the new certificate is not used")
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
