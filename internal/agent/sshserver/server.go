// Package sshserver is the guest's SSH server: shells and commands with and without a terminal, sftp, and local forwarding.
// It needs nothing in the image.
//
// Keys only: a client must have one of the authorized keys, whatever user name it gives; commands run as that user. The
// host key comes from the host, which has pinned it. Commands are run by package run, as everything in the guest.
//
// Ciphers without hardware support are dear under emulation, so the cheap ones stand first.
package sshserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/agent/call"
	"github.com/banger-vm/banger/internal/agent/run"
)

// Config is what a server works with. The functions are called for each connection, because the host may replace keys.
type Config struct {
	HostKey        func() []byte   // PEM, as ssh.ParsePrivateKey reads it
	AuthorizedKeys func() []string // authorized_keys(5) lines
	Run            *run.Service
	Log            *slog.Logger
}

// Server serves SSH connections.
type Server struct{ cfg Config }

// New returns a server. Keys are parsed when the first connection comes.
func New(cfg Config) *Server { return &Server{cfg} }

// Handlers returns the agent's method that this package serves.
func (s *Server) Handlers() map[string]call.Handler {
	return map[string]call.Handler{guestapi.MethodSSH: func(ctx context.Context, c *call.Call) (any, error) {
		if err := c.Accept(nil); err != nil {
			return nil, err
		}
		s.ServeConn(ctx, c)
		return nil, nil
	}}
}

// Serve serves the connections that l accepts, until ctx ends.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		go s.ServeConn(ctx, conn)
	}
}

// loginTime bounds the time from connect to login; it is long because of emulation.
const loginTime = time.Minute

// ServeConn serves one connection to its end and closes it.
func (s *Server) ServeConn(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	config, err := s.config()
	if err != nil {
		s.cfg.Log.Error("ssh", "err", err)
		return
	}
	late := time.AfterFunc(loginTime, func() { conn.Close() })
	sc, channels, requests, err := ssh.NewServerConn(conn, config)
	late.Stop()
	if err != nil {
		s.cfg.Log.Info("ssh login", "err", err)
		return
	}
	defer sc.Close()
	go ssh.DiscardRequests(requests)
	var open sync.WaitGroup
	defer open.Wait()
	for c := range channels {
		open.Go(func() { s.serveChannel(ctx, sc.User(), c) })
	}
}

func (s *Server) config() (*ssh.ServerConfig, error) {
	key, err := ssh.ParsePrivateKey(s.cfg.HostKey())
	if err != nil {
		return nil, fmt.Errorf("host key: %w", err)
	}
	config := &ssh.ServerConfig{PublicKeyCallback: s.authorize, MaxAuthTries: 6, ServerVersion: "SSH-2.0-banger"}
	config.KeyExchanges = []string{ssh.KeyExchangeCurve25519, ssh.KeyExchangeECDHP256}
	config.Ciphers = []string{ssh.CipherAES128GCM, ssh.CipherChaCha20Poly1305, ssh.CipherAES256GCM, ssh.CipherAES128CTR}
	config.AddHostKey(key)
	return config, nil
}

var errNotAuthorized = errors.New("key is not authorized")

func (s *Server) authorize(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
	for _, line := range s.cfg.AuthorizedKeys() {
		allowed, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
		if err == nil && bytes.Equal(allowed.Marshal(), key.Marshal()) {
			return &ssh.Permissions{}, nil
		}
	}
	return nil, errNotAuthorized
}

func (s *Server) serveChannel(ctx context.Context, user string, c ssh.NewChannel) {
	switch c.ChannelType() {
	case "session":
		s.serveSession(ctx, user, c)
	case "direct-tcpip":
		forward(ctx, c)
	default:
		c.Reject(ssh.UnknownChannelType, "unknown channel type "+c.ChannelType())
	}
}
