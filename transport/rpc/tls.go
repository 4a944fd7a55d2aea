package rpc

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipcd/ipcd/internal/config"
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
	if _, err := t.Reload(c); err != nil {
		return nil, err
	}
	return t, nil
}

// Reload loads certificates anew, for handshakes from now on. Connections whose certificate is not signed by the new
// authorities, or that would act as another user, are closed. It reports whether anything differs from what was in force:
// files may have other contents under the same names. After an error everything stays as it was.
func (t *TLS) Reload(c TLSConfig) (changed bool, err error) {
	state, err := t.load(c)
	if err != nil {
		return false, err
	}
	t.mu.Lock()
	defer t.mu.Unlock() // so that the last one to store is the last one to be looked at
	old := t.current.Swap(state)
	for _, f := range t.changed {
		f()
	}
	return old == nil || !state.same(old), nil
}

// same reports whether two states show the same certificate, take the same clients, and let them act as the same users.
func (s *tlsState) same(as *tlsState) bool {
	return slices.EqualFunc(s.config.Certificates[0].Certificate, as.config.Certificates[0].Certificate, bytes.Equal) &&
		s.clients.Equal(as.clients) && maps.EqualFunc(s.users, as.users, sameUser)
}

// onChange has f called after each reload.
func (t *TLS) onChange(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.changed = append(t.changed, f)
}

func (t *TLS) load(c TLSConfig) (*tlsState, error) {
	for what, name := range map[string]string{"cert": c.Cert, "key": c.Key, "client_ca": c.ClientCA} {
		if name == "" {
			return nil, fmt.Errorf("TLS %s: no file is named; TLS needs a certificate, its key and the clients' authorities", what)
		}
	}
	own, err := config.ReadKeyPair(c.Cert, c.Key)
	if err != nil {
		return nil, fmt.Errorf("TLS certificate: %w", err)
	}
	authorities, err := config.ReadAuthorities(c.ClientCA)
	if err != nil {
		return nil, fmt.Errorf("TLS client_ca: %s: %w", c.ClientCA, err)
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
