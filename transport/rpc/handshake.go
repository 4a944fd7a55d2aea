package rpc

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"go.uber.org/zap"
)

// handshakeTLS makes a connection a TLS one whose peer has shown a certificate of ours.
func (s *Server) handshakeTLS(conn *connection, t *TLS) (net.Conn, error) {
	s.conns.handshake(conn)
	defer s.conns.handshaken(conn)
	state := t.current.Load()
	secured := tls.Server(conn, state.config)
	if err := secured.Handshake(); err != nil {
		s.logHandshake(conn, err)
		return nil, err
	}
	now := secured.ConnectionState()
	who, err := state.identify(now.PeerCertificates[0])
	if err != nil {
		return nil, err
	}
	peer := &tlsPeer{chain: now.PeerCertificates, until: validUntil(now.VerifiedChains)}
	if err := s.conns.identify(conn, who, peer); err != nil {
		s.logRefused(conn, err)
		return nil, err
	}
	s.expire(conn, t)
	// A reload from here on finds the connection; one before may have come after the configuration was taken.
	if current := t.current.Load(); current != state {
		if err := current.mayStay(conn, t.now()); err != nil {
			s.logHandshake(conn, err)
			return nil, err
		}
	}
	return secured, nil
}

// expire closes the connection when its certificate has expired by the wall clock, which may be set meanwhile: so it is
// looked at now and then.
func (s *Server) expire(conn *connection, t *TLS) {
	s.conns.mu.Lock()
	defer s.conns.mu.Unlock()
	if conn.left || conn.refused != nil {
		return
	}
	left := conn.peer.until.Sub(t.now())
	conn.timer = time.AfterFunc(max(min(left, t.recheck), 0), func() {
		if t.now().After(conn.peer.until) {
			s.endConnection(conn, errors.New("its certificate has expired"))
			return
		}
		s.expire(conn, t)
	})
}

// mayStay says why a connection may not stay under this state.
func (s *tlsState) mayStay(conn *connection, now time.Time) error {
	who, _, err := s.verify(conn.peer.chain, now)
	if err != nil {
		return err
	}
	if !sameUser(who, conn.who) {
		return fmt.Errorf("the configuration has it act as %v, no longer as %v", who, conn.who)
	}
	return nil
}

// recheckTLS closes the connections that may not stay.
func (s *Server) recheckTLS() {
	state := s.tls.current.Load()
	s.warnOfExpiry(state)
	for _, conn := range s.conns.list() {
		if conn.peer == nil {
			continue
		}
		if err := state.mayStay(conn, s.tls.now()); err != nil {
			s.endConnection(conn, err)
		}
	}
}

// warnOfExpiry tells the operator that no client will trust the daemon.
func (s *Server) warnOfExpiry(state *tlsState) {
	if s.tls.now().After(state.expires) {
		s.log.Warn("the daemon's TLS certificate has expired: clients will refuse it", zap.Time("expired", state.expires))
	}
}

// host is where a connection comes from. Lines of the log are sampled by their message: with this in it, who makes many
// hides nobody else's.
func (c *connection) host() string {
	if tcp, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		return tcp.IP.String()
	}
	return c.door
}

func (s *Server) endConnection(conn *connection, why error) {
	s.strangers.Info("TLS connection closed: "+conn.who.Principal().String(), zap.Stringer("remote", conn.RemoteAddr()), zap.Stringer("who", conn.who), zap.String("why", why.Error()))
	conn.Close()
}

func (s *Server) logRefused(conn *connection, why error) {
	s.strangers.Info("connection refused: "+conn.host(), zap.String("door", conn.door), zap.Stringer("remote", conn.RemoteAddr()), zap.String("why", why.Error()))
}

// logHandshake tells the operator why somebody could not connect. Who says nothing and goes (a port scan, a health
// check) is not worth a line.
func (s *Server) logHandshake(conn *connection, err error) {
	why := err.Error()
	var plain tls.RecordHeaderError
	switch {
	case errors.Is(err, io.EOF):
		return
	case errors.As(err, &plain):
		why = "the client does not speak TLS (" + why + ")"
	case errors.Is(err, os.ErrDeadlineExceeded):
		why = "the client did not finish the handshake in time"
	case errors.Is(err, net.ErrClosed):
		why = "it was given up for others: too many handshakes are under way, or the daemon stops"
	}
	s.strangers.Info("TLS handshake failed: "+conn.host(), zap.Stringer("remote", conn.RemoteAddr()), zap.String("why", why))
}
