package rpc

import (
	"context"
	"errors"
	"net"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/ipcd/ipcd/internal/identity"
)

// peerCredentials let the kernel say who a caller is. A connection over a unix socket carries the
// identity of SO_PEERCRED (unix(7)); over TCP nothing is known of the caller, who stays anonymous.
type peerCredentials struct{}

// callerInfo is a connection's identity, established once when it is accepted.
type callerInfo struct {
	credentials.CommonAuthInfo
	caller identity.Identity
}

// AuthType names the way in which the caller was identified.
func (i callerInfo) AuthType() string { return i.caller.Kind.String() }

func (peerCredentials) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	unixConn, ok := conn.(*net.UnixConn)
	if !ok {
		return conn, callerInfo{}, nil
	}
	caller, err := identity.FromUnixConn(unixConn)
	if err != nil {
		return nil, nil, err
	}
	info := callerInfo{caller: caller}
	info.SecurityLevel = credentials.PrivacyAndIntegrity // it never leaves the host
	return conn, info, nil
}

func (peerCredentials) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("peer credentials are for servers")
}

func (peerCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "peercred"}
}

func (c peerCredentials) Clone() credentials.TransportCredentials { return c }

func (peerCredentials) OverrideServerName(string) error { return nil }

// callerFrom returns on whose behalf a call is made; anonymous if nothing is known.
func callerFrom(ctx context.Context) identity.Identity {
	if p, ok := peer.FromContext(ctx); ok {
		if info, ok := p.AuthInfo.(callerInfo); ok {
			return info.caller
		}
	}
	return identity.Identity{}
}
