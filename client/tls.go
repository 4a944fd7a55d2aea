package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/credentials"

	"github.com/ipcd/ipcd/internal/reason"
)

// TLS is how a client and a daemon prove to each other over TCP who they are. The daemon wants a certificate
// of each client. Files are PEM, and are read again for each connection, so that renewed ones are used.
type TLS struct {
	CertFile   string // the client's certificate, and those between it and the daemon's authority
	KeyFile    string // its private key
	CAFile     string // the authorities that may have signed the daemon's certificate; "": those that this host trusts
	ServerName string // whom the daemon's certificate must name; "": the host of the target
}

// pemBytesMax bounds what is read of each file.
const pemBytesMax = 4 << 20

// WithTLS connects over TCP with TLS 1.3. Dial fails with ErrInvalidArgument if a file cannot be used.
func WithTLS(t TLS) Option { return func(o *dialOptions) { o.tls = &t } }

// TLSFromEnvironment returns what Dial uses for a TCP target where neither WithTLS nor WithInsecure is given:
// the files in IPCD_TLS_CERT, IPCD_TLS_KEY and IPCD_TLS_CA, and the name in IPCD_TLS_SERVER_NAME.
func TLSFromEnvironment() TLS {
	return TLS{
		CertFile:   os.Getenv("IPCD_TLS_CERT"),
		KeyFile:    os.Getenv("IPCD_TLS_KEY"),
		CAFile:     os.Getenv("IPCD_TLS_CA"),
		ServerName: os.Getenv("IPCD_TLS_SERVER_NAME"),
	}
}

// handshaker does the TLS handshake of each connection that gRPC makes.
type handshaker struct {
	credentials.TransportCredentials // for what gRPC asks of servers only

	tls       TLS
	host      string // of the target
	connected func() // a connection is good: the daemon has spoken
	failed    func(error)
}

// newHandshaker returns a handshaker, or an error if its files cannot be used now.
func newHandshaker(t TLS, host string, connected func(), failed func(error)) (*handshaker, error) {
	h := &handshaker{tls: t, host: host, connected: connected, failed: failed}
	if _, _, err := h.config(); err != nil {
		return nil, err
	}
	return h, nil
}

// Info names no server: what gRPC calls the authority is the target's address.
func (h *handshaker) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

// Clone returns h, which never changes.
func (h *handshaker) Clone() credentials.TransportCredentials { return h }

// config reads the files. The flag that comes with it becomes true when the daemon asks for a certificate.
func (h *handshaker) config() (*tls.Config, *atomic.Bool, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS13, ServerName: h.tls.ServerName}
	if config.ServerName == "" {
		config.ServerName = h.host
	}
	if h.tls.CAFile != "" {
		pem, err := readPEM("authorities", h.tls.CAFile)
		if err != nil {
			return nil, nil, err
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, nil, newError(reason.InvalidArgument, "%s: no certificate of an authority is in it: it must hold BEGIN CERTIFICATE blocks (PEM)", h.tls.CAFile)
		}
	}
	own := new(tls.Certificate) // an empty one: none
	if h.tls.CertFile != "" || h.tls.KeyFile != "" {
		pair, err := h.tls.keyPair()
		if err != nil {
			return nil, nil, err
		}
		own = &pair
	}
	asked := new(atomic.Bool)
	// Not Certificates: from those none is sent that the daemon's authorities did not sign, and what the daemon
	// then says is that there is none, not that it is foreign.
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		asked.Store(true)
		return own, nil
	}
	return config, asked, nil
}

func (t TLS) keyPair() (tls.Certificate, error) {
	if t.CertFile == "" || t.KeyFile == "" {
		return tls.Certificate{}, newError(reason.InvalidArgument, "a certificate and its key belong together: give both files, or neither (certificate %q, key %q)", t.CertFile, t.KeyFile)
	}
	cert, err := readPEM("certificate", t.CertFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := readPEM("private key", t.KeyFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return tls.Certificate{}, newError(reason.InvalidArgument, "certificate %s with key %s: %s", t.CertFile, t.KeyFile, strings.TrimPrefix(err.Error(), "tls: ")).because(err)
	}
	return pair, nil
}

func readPEM(what, path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, newError(reason.InvalidArgument, "%s: %v", what, err).because(err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, pemBytesMax+1))
	if err != nil {
		return nil, newError(reason.InvalidArgument, "%s: %v", what, err).because(err)
	}
	if len(text) > pemBytesMax {
		return nil, newError(reason.InvalidArgument, "%s: %s is larger than %d bytes, which no PEM file needs", what, path, pemBytesMax)
	}
	return text, nil
}

// ClientHandshake makes a connection out of raw. gRPC calls it, and tries again later if it fails.
func (h *handshaker) ClientHandshake(ctx context.Context, _ string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	config, asked, err := h.config()
	if err != nil {
		h.failed(err)
		return nil, nil, err
	}
	conn, info, err := credentials.NewTLS(config).ClientHandshake(ctx, config.ServerName, raw)
	if err != nil {
		err = h.explain(err, config.ServerName)
		h.failed(err)
		return nil, nil, err
	}
	return &newConn{Conn: conn, h: h, asked: asked, verdict: make(chan struct{})}, info, nil
}

// newConn is a connection whose handshake has succeeded on this side. In TLS 1.3 that says nothing about the other
// side: its verdict on our certificate comes with, or instead of, the first bytes.
type newConn struct {
	net.Conn
	h       *handshaker
	asked   *atomic.Bool // for a certificate
	once    sync.Once
	verdict chan struct{} // closed once the first read is done
}

// verdictWait bounds how long a write that failed waits for the reason.
const verdictWait = time.Second

func (c *newConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.once.Do(func() {
		if n > 0 {
			c.h.connected()
		} else if err != nil {
			c.h.failed(c.h.explainSilence(err, c.asked.Load()))
		}
		close(c.verdict)
	})
	return n, err
}

// Write fails where the daemon has refused us and closed. gRPC, whose other goroutine reads, closes at once
// after that: so what the daemon said is read first.
func (c *newConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if err != nil {
		select {
		case <-c.verdict:
		case <-time.After(verdictWait):
		}
	}
	return n, err
}

// explain says what was wrong with a handshake, and what to do.
func (h *handshaker) explain(err error, name string) *Error {
	var (
		foreign    x509.UnknownAuthorityError
		otherName  x509.HostnameError
		invalid    x509.CertificateInvalidError
		unverified *tls.CertificateVerificationError
		notTLS     tls.RecordHeaderError
	)
	switch {
	case errors.As(err, &foreign):
		return newError(reason.Unauthenticated, "the daemon's certificate is not signed by %s: check that this is the right daemon, and name its authority's certificate", h.authorities()).because(err)
	case errors.As(err, &otherName):
		return newError(reason.Unauthenticated, "the daemon's certificate is not for %s (%v): use the name that it has, as the address or as the server's name", name, otherName).because(err)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return newError(reason.Unauthenticated, "the daemon's certificate has expired or is not valid yet (%s): renew it, or set this host's clock", invalid.Detail).because(err)
	case errors.As(err, &unverified):
		return newError(reason.Unauthenticated, "the daemon's certificate cannot be accepted: %v", unverified.Err).because(err)
	case errors.As(err, &notTLS), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return newError(reason.Unreachable, "what answers does not speak TLS (%v): is it the daemon's address, and has it tls in its configuration? A plaintext listener on loopback needs insecure", err).because(err)
	}
	return newError(reason.Unreachable, "the handshake, which must be of TLS 1.3, failed: %v", err).because(err)
}

// explainSilence says why the connection ended before the daemon sent anything.
func (h *handshaker) explainSilence(err error, asked bool) error {
	if refusedByPeer(err) {
		return h.refused(err)
	}
	// What the daemon said may be lost: it closes while our first bytes are on their way, and is answered with a reset.
	if asked && h.tls.CertFile == "" {
		return h.refused(err)
	}
	return newError(reason.Unreachable, "the daemon closed the connection right after the TLS handshake (%v): its log says why", err).because(err)
}

// refused is the error for a daemon that does not accept who we are.
func (h *handshaker) refused(err error) *Error {
	said := err
	if remote := (*net.OpError)(nil); errors.As(err, &remote) {
		said = remote.Err
	}
	text := strings.TrimPrefix(said.Error(), "tls: ")
	if h.tls.CertFile == "" {
		return newError(reason.Unauthenticated, "the daemon demands a certificate of its clients (%s): give one and its key", text).because(err)
	}
	return newError(reason.Unauthenticated, "the daemon does not accept the certificate in %s (%s): is it still valid, for clients, and signed by the daemon's client authority?", h.tls.CertFile, text).because(err)
}

// refusedByPeer reports whether err is an alert that the other side sent (RFC 8446, section 6).
func refusedByPeer(err error) bool {
	var remote *net.OpError
	return errors.As(err, &remote) && remote.Op == "remote error"
}

func (h *handshaker) authorities() string {
	if h.tls.CAFile == "" {
		return "an authority that this host trusts"
	}
	return fmt.Sprintf("an authority in %s", h.tls.CAFile)
}
