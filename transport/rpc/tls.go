package rpc

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/limits"
)

// TLSConfig says with which certificate the daemon shows itself, and whose certificates it takes. Files are PEM.
type TLSConfig struct {
	Cert     string // the daemon's certificate, and those of intermediate authorities after it
	Key      string
	ClientCA string // the authorities that sign clients' certificates
	// Users says as which local user a certificate acts: its name, and an identity of which UID, GID and Groups count.
	Users map[string]identity.Identity
}

// TLS is mutual TLS 1.3. It can be given other certificates while it is used. It is safe for concurrent use.
type TLS struct {
	now     func() time.Time
	recheck time.Duration // between looks whether a certificate has expired
	current atomic.Pointer[tlsState]

	mu      sync.Mutex // guards changed
	changed []func()   // called after a reload
}

// tlsState is what one configuration gave. It does not change.
type tlsState struct {
	config  *tls.Config
	clients *x509.CertPool
	users   map[string]identity.Identity
	expires time.Time // the daemon's own certificate
}

// tlsPeer is the other end of a TLS connection.
type tlsPeer struct {
	chain []*x509.Certificate // as it was presented, its own first
	until time.Time           // when the first certificate expires without which it could not be verified
}

// NewTLS loads certificates. Errors name the file and what is wrong with it.
func NewTLS(c TLSConfig) (*TLS, error) {
	t := &TLS{now: time.Now, recheck: limits.CertificateRecheck}
	if err := t.Reload(c); err != nil {
		return nil, err
	}
	return t, nil
}

// Reload loads certificates anew, for handshakes from now on. Connections whose certificate is not signed by the new
// authorities, or that would act as another user, are closed. After an error everything stays as it was.
func (t *TLS) Reload(c TLSConfig) error {
	state, err := t.load(c)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock() // so that the last one to store is the last one to be looked at
	t.current.Store(state)
	for _, f := range t.changed {
		f()
	}
	return nil
}

// onChange has f called after each reload.
func (t *TLS) onChange(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.changed = append(t.changed, f)
}

func (t *TLS) load(c TLSConfig) (*tlsState, error) {
	certPEM, err := readPEM("certificate", c.Cert)
	if err != nil {
		return nil, err
	}
	keyPEM, err := readPEM("key", c.Key)
	if err != nil {
		return nil, err
	}
	own, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("TLS certificate %s with key %s: %w", c.Cert, c.Key, err)
	}
	authorities, err := loadAuthorities(c.ClientCA)
	if err != nil {
		return nil, err
	}
	state := &tlsState{clients: x509.NewCertPool(), users: c.Users, expires: own.Leaf.NotAfter}
	for _, authority := range authorities {
		state.clients.AddCert(authority)
	}
	state.config = &tls.Config{
		Certificates: []tls.Certificate{own},
		ClientCAs:    state.clients,
		ClientAuth:   tls.RequireAndVerifyClientCert,
		MinVersion:   tls.VersionTLS13,
		NextProtos:   []string{"h2"},
		Time:         t.now,
		// A resumed session would be believed what an earlier one proved, under whatever configuration.
		SessionTicketsDisabled: true,
		VerifyConnection: func(c tls.ConnectionState) error {
			if c.NegotiatedProtocol != "h2" {
				return errors.New("the client does not offer HTTP/2 (ALPN h2)")
			}
			_, err := state.identify(c.PeerCertificates[0])
			return err
		},
	}
	return state, nil
}

// readPEM reads a file of bounded size.
func readPEM(what, name string) ([]byte, error) {
	if name == "" {
		return nil, fmt.Errorf("TLS %s: no file is named; TLS needs a certificate, its key and the clients' authorities", what)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("TLS %s: %w", what, err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, limits.TLSFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("TLS %s: %w", what, err)
	}
	if len(text) > limits.TLSFileBytes {
		return nil, fmt.Errorf("TLS %s %s: more than %d bytes: name a PEM file", what, name, limits.TLSFileBytes)
	}
	return text, nil
}

// loadAuthorities reads certificates, and is strict about it: one that is passed over would be missed only when its
// clients are refused.
func loadAuthorities(name string) ([]*x509.Certificate, error) {
	rest, err := readPEM("client_ca", name)
	if err != nil {
		return nil, err
	}
	var out []*x509.Certificate
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("TLS client_ca %s: a PEM block %.40q: there may be certificates only", name, block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("TLS client_ca %s: certificate %d: %w", name, len(out)+1, err)
		}
		if !c.IsCA {
			return nil, fmt.Errorf("TLS client_ca %s: certificate %d, of %s, is not of an authority: it can sign no clients", name, len(out)+1, c.Subject)
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("TLS client_ca %s: no certificates: it must have at least one, in PEM", name)
	}
	return out, nil
}

// certificateName is what a certificate is called: its SPIFFE ID, else its subject as of RFC 4514.
func certificateName(c *x509.Certificate) (string, error) {
	name := c.Subject.String()
	if i := slices.IndexFunc(c.URIs, func(u *url.URL) bool { return u.Scheme == "spiffe" }); i >= 0 {
		name = c.URIs[i].String()
	}
	switch {
	case name == "":
		return "", errors.New("the certificate has neither a SPIFFE ID nor a subject: nobody could be told by it")
	case len(name) > limits.CertificateNameLength:
		return "", fmt.Errorf("the certificate's name has %d bytes and may have %d", len(name), limits.CertificateNameLength)
	case !utf8.ValidString(name):
		return "", errors.New("the certificate's name is no UTF-8")
	}
	return name, nil
}

// identify says who holds a certificate that was verified.
func (s *tlsState) identify(c *x509.Certificate) (identity.Identity, error) {
	name, err := certificateName(c)
	if err != nil {
		return identity.Identity{}, err
	}
	id := identity.Identity{Kind: identity.Certificate, Name: name}
	if user, ok := s.users[name]; ok {
		id.Mapped, id.UID, id.GID, id.Groups = true, user.UID, user.GID, user.Groups
	}
	return id, nil
}

// verify looks at a chain again, as the handshake did.
func (s *tlsState) verify(chain []*x509.Certificate, now time.Time) (identity.Identity, time.Time, error) {
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	chains, err := chain[0].Verify(x509.VerifyOptions{
		Roots: s.clients, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return identity.Identity{}, time.Time{}, err
	}
	who, err := s.identify(chain[0])
	return who, validUntil(chains), err
}

// validUntil returns how long at least one of the chains is valid.
func validUntil(chains [][]*x509.Certificate) (until time.Time) {
	for _, chain := range chains {
		end := chain[0].NotAfter
		for _, c := range chain[1:] {
			if c.NotAfter.Before(end) {
				end = c.NotAfter
			}
		}
		if end.After(until) {
			until = end
		}
	}
	return until
}

// sameUser reports whether two identities of one certificate act as the same user.
func sameUser(a, b identity.Identity) bool {
	return a.Name == b.Name && a.Mapped == b.Mapped && a.UID == b.UID && a.GID == b.GID && slices.Equal(a.Groups, b.Groups)
}
