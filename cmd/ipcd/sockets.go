package main

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"

	"go.uber.org/zap"

	"github.com/ipcd/ipcd/internal/config"
	"github.com/ipcd/ipcd/internal/service"
	"github.com/ipcd/ipcd/transport/ops"
	"github.com/ipcd/ipcd/transport/rpc"
	"github.com/ipcd/ipcd/transport/shmring"
)

// sockets is where the daemon listens.
type sockets struct {
	rpc    []net.Listener // unix first
	attach *shmring.Listener
	http   net.Listener // or nil
	tls    *rpc.TLS     // of TCP, or nil
}

// listen opens the sockets: all or none. A kind of socket that the service manager gave is not opened again, whatever
// the configuration says of it.
func listen(cfg config.Config, given *service.Sockets, logger *zap.Logger) (s *sockets, err error) {
	s = &sockets{}
	defer func() {
		if err != nil {
			s.close()
			given.Close()
		}
	}()
	if cfg.TLS.On() {
		if s.tls, err = rpc.NewTLS(tlsConfig(cfg)); err != nil {
			return s, usageError{err}
		}
	}
	switch {
	case len(given.Unix) > 0:
		for _, l := range given.Unix {
			s.rpc = append(s.rpc, rpc.AdoptUnix(l))
		}
	default:
		l, err := rpc.ListenUnix(cfg.Socket)
		if err != nil {
			return s, err
		}
		s.rpc = append(s.rpc, l)
	}
	if err := s.listenTCP(cfg, given); err != nil {
		var refused rpc.AddressError
		if errors.As(err, &refused) {
			return s, usageError{err}
		}
		return s, err
	}
	switch len(given.Attach) {
	case 0:
		path := cfg.AttachSocket
		if len(given.Unix) > 0 && filepath.Dir(path) == filepath.Dir(cfg.Socket) { // clients look for it beside the socket
			path = filepath.Join(filepath.Dir(given.Unix[0].Addr().String()), filepath.Base(path))
		}
		s.attach, err = shmring.Listen(path)
	case 1:
		s.attach = shmring.Adopt(given.Attach[0])
	default:
		err = usageError{fmt.Errorf("the service manager gave %d seqpacket sockets: rings are attached to at one; remove a ListenSequentialPacket= from the socket unit", len(given.Attach))}
	}
	if err != nil {
		return s, err
	}
	if cfg.HTTP != "" {
		if s.http, err = ops.Listen(cfg.HTTP); err != nil {
			return s, err
		}
	}
	if n := len(given.Unix) + len(given.Attach) + len(given.TCP); n > 0 {
		logger.Info("the service manager gave sockets", zap.Int("sockets", n), zap.Int("stored", len(given.Stored)))
	}
	return s, nil
}

func (s *sockets) listenTCP(cfg config.Config, given *service.Sockets) error {
	for _, l := range given.TCP {
		adopted, err := rpc.AdoptTCP(l, cfg.Insecure, s.tls != nil)
		if err != nil {
			return err
		}
		s.rpc = append(s.rpc, adopted)
	}
	if len(given.TCP) > 0 || cfg.Listen == "" {
		return nil
	}
	l, err := rpc.ListenTCP(cfg.Listen, cfg.Insecure, s.tls != nil)
	if err != nil {
		return err
	}
	s.rpc = append(s.rpc, l)
	return nil
}

// close closes what nobody serves yet.
func (s *sockets) close() {
	for _, l := range s.rpc {
		l.Close()
	}
	if s.attach != nil {
		s.attach.Close()
	}
	if s.http != nil {
		s.http.Close()
	}
}

func (s *sockets) addresses() []string {
	list := make([]string, len(s.rpc))
	for i, l := range s.rpc {
		list[i] = rpc.Address(l)
	}
	return list
}

func tlsConfig(cfg config.Config) rpc.TLSConfig {
	return rpc.TLSConfig{Cert: cfg.TLS.Cert, Key: cfg.TLS.Key, ClientCA: cfg.TLS.ClientCA, Users: cfg.TLS.Users}
}
