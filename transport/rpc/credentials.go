package rpc

import (
	"context"
	"errors"
	"fmt"
	"net"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/ipcd/ipcd/internal/identity"
)

// peerCredentials find out who a caller is, once for each connection. Over a unix socket the kernel says so
// (SO_PEERCRED, unix(7)); over TLS a certificate does; over plain TCP nothing is known of the caller, who stays anonymous.
type peerCredentials struct {
	server *Server
	tls    *TLS // nil: no TLS
}

// callerInfo is a connection's caller, as gRPC carries it along.
type callerInfo struct {
	credentials.CommonAuthInfo
	conn *connection
}

// AuthType names the way in which the caller was identified.
func (i callerInfo) AuthType() string { return i.conn.who.Kind.String() }

// ServerHandshake identifies the caller. gRPC has set a deadline for it.
func (p peerCredentials) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, ok := raw.(*connection)
	if !ok {
		return nil, nil, fmt.Errorf("a connection that was not accepted here: %T", raw)
	}
	info := callerInfo{conn: conn}
	info.SecurityLevel = credentials.PrivacyAndIntegrity // on a unix socket: it never leaves the host
	if p.tls != nil {
		secured, err := p.server.handshakeTLS(conn, p.tls)
		if err != nil {
			return nil, nil, err
		}
		return newFramed(secured, conn), info, nil
	}
	var who identity.Identity
	if unixConn, ok := conn.Conn.(*net.UnixConn); ok {
		var err error
		if who, err = identity.FromUnixConn(unixConn); err != nil {
			return nil, nil, err
		}
	} else {
		info.SecurityLevel = credentials.NoSecurity
	}
	if err := p.server.conns.identify(conn, who, nil); err != nil {
		p.server.logRefused(conn, err)
		return nil, nil, err
	}
	return newFramed(conn, conn), info, nil
}

// ClientHandshake is not for servers.
func (peerCredentials) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("peer credentials are for servers")
}

// Info names the protocol.
func (p peerCredentials) Info() credentials.ProtocolInfo {
	if p.tls != nil {
		return credentials.ProtocolInfo{SecurityProtocol: "tls"}
	}
	return credentials.ProtocolInfo{SecurityProtocol: "peercred"}
}

// Clone returns the credentials, which hold nothing that changes.
func (p peerCredentials) Clone() credentials.TransportCredentials { return p }

// OverrideServerName is not for servers.
func (peerCredentials) OverrideServerName(string) error { return nil }

// callerFrom returns on whose behalf a call is made; anonymous if nothing is known.
func callerFrom(ctx context.Context) identity.Identity {
	if p, ok := peer.FromContext(ctx); ok {
		if info, ok := p.AuthInfo.(callerInfo); ok {
			return info.conn.who
		}
	}
	return identity.Identity{}
}
