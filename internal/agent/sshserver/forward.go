package sshserver

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/banger-vm/banger/internal/agent/proc"
)

// Payloads of forwarding: RFC 4254, 7.1 and 7.2, and OpenSSH's PROTOCOL, 2.4.
type (
	directTCPIP struct {
		Host       string
		Port       uint32
		OriginHost string
		OriginPort uint32
	}
	directStreamLocal struct {
		Path      string
		Reserved1 string
		Reserved2 uint32
	}
	tcpipForward struct { // of the requests tcpip-forward and cancel-tcpip-forward
		Host string
		Port uint32
	}
	forwardReply struct{ Port uint32 }
)

// address is what a client wants to be connected to, as net.Dial takes it.
type address struct{ network, name string }

func directTCPAddress(payload []byte) (address, error) {
	var p directTCPIP
	err := ssh.Unmarshal(payload, &p)
	return address{"tcp", net.JoinHostPort(p.Host, strconv.Itoa(int(p.Port)))}, err
}

func directUnixAddress(payload []byte) (address, error) {
	var p directStreamLocal
	err := ssh.Unmarshal(payload, &p)
	return address{"unix", p.Path}, err
}

// serveDirect serves a channel that the client opened to reach something in the guest: ssh's -L, -D, -W and -J.
func serveDirect(ctx context.Context, nc ssh.NewChannel, parse func(payload []byte) (address, error)) {
	to, err := parse(nc.ExtraData())
	if err != nil {
		nc.Reject(ssh.ConnectionFailed, "bad payload")
		return
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, to.network, to.name)
	if err != nil {
		nc.Reject(ssh.ConnectionFailed, err.Error())
		return
	}
	ch, requests, err := nc.Accept()
	if err != nil {
		conn.Close()
		return
	}
	join(ctx, ch, requests, conn)
}

// join copies both ways until both directions have ended or ctx does, and closes both ends. When the client closes the
// channel, nobody wants to read conn any more, but what the client sent before still goes there.
func join(ctx context.Context, ch ssh.Channel, requests <-chan *ssh.Request, conn net.Conn) {
	defer conn.Close()
	defer ch.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	go func() {
		ssh.DiscardRequests(requests) // until the channel is closed
		conn.SetReadDeadline(time.Unix(1, 0))
	}()
	up := make(chan struct{})
	go func() {
		defer close(up)
		io.Copy(conn, ch)
		if half, ok := conn.(interface{ CloseWrite() error }); ok {
			half.CloseWrite()
		}
	}()
	io.Copy(ch, conn)
	ch.CloseWrite()
	<-up
}

// accept carries the connections that l accepts to the client, each over a channel of this kind, until l is closed; then
// it waits for them. The payload is made of a connection's origin.
func accept(ctx context.Context, l net.Listener, conn *ssh.ServerConn, kind string, payload func(net.Conn) []byte) {
	var open sync.WaitGroup
	defer open.Wait()
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		open.Go(func() {
			ch, requests, err := conn.OpenChannel(kind, payload(c))
			if err != nil {
				c.Close()
				return
			}
			join(ctx, ch, requests, c)
		})
	}
}

// serveRequests serves the requests of a connection as a whole, which are those for remote forwarding (ssh's -R), until
// it ends, and then closes what still listens. Others are answered with a refusal, which is all that a keep-alive wants.
func serveRequests(ctx context.Context, conn *ssh.ServerConn, requests <-chan *ssh.Request) {
	listeners := make(map[tcpipForward]net.Listener)
	var open sync.WaitGroup
	defer open.Wait()
	defer func() {
		for _, l := range listeners {
			l.Close()
		}
	}()
	for r := range requests {
		var p tcpipForward
		ok, reply := false, []byte(nil)
		switch r.Type {
		case "tcpip-forward":
			if ssh.Unmarshal(r.Payload, &p) != nil {
				break
			}
			l, err := listen(ctx, p.Port)
			if err != nil {
				break
			}
			if ok = true; p.Port == 0 {
				p.Port = portOf(l.Addr())
				reply = ssh.Marshal(forwardReply{p.Port})
			}
			listeners[p] = l
			open.Go(func() {
				accept(ctx, l, conn, "forwarded-tcpip", func(c net.Conn) []byte {
					host, _, _ := net.SplitHostPort(c.RemoteAddr().String()) // net made the address
					return ssh.Marshal(directTCPIP{p.Host, p.Port, host, portOf(c.RemoteAddr())})
				})
			})
		case "cancel-tcpip-forward":
			if ssh.Unmarshal(r.Payload, &p) != nil || listeners[p] == nil {
				break
			}
			listeners[p].Close()
			delete(listeners, p)
			ok = true
		}
		if r.WantReply {
			r.Reply(ok, reply)
		}
	}
}

// listen listens on the guest's loopback, whatever address the client names: sshd's default, GatewayPorts=no.
func listen(ctx context.Context, port uint32) (net.Listener, error) {
	return (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))))
}

func portOf(a net.Addr) uint32 { return uint32(a.(*net.TCPAddr).Port) }

// forwardAgent makes a socket in the guest that leads to the client's ssh-agent (ssh's -A), in a directory that only the
// session's user may enter, and names it to the session's program.
func (x *session) forwardAgent(ctx context.Context) bool {
	if x.agent != nil || x.begun {
		return false
	}
	u, err := proc.LookupUser(x.spec.User)
	if err != nil {
		return false
	}
	socket, err := listenAgent(u)
	if err != nil {
		x.s.cfg.Log.Warn("ssh: forward the agent", "err", err)
		return false
	}
	x.agent = socket
	x.spec.Env = append(x.spec.Env, "SSH_AUTH_SOCK="+socket.Addr().String())
	go accept(ctx, socket, x.conn, "auth-agent@openssh.com", func(net.Conn) []byte { return nil })
	return true
}

// agentSocket is a listener that takes its directory along when it is closed.
type agentSocket struct {
	net.Listener
	dir string
}

func listenAgent(u proc.User) (*agentSocket, error) {
	dir, err := os.MkdirTemp("", "ssh-")
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "agent")
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, errors.Join(err, os.Remove(dir))
	}
	s := &agentSocket{l, dir}
	for _, p := range []string{path, dir} {
		if err := os.Chown(p, int(u.UID), int(u.GID)); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	return s, nil
}

// Close stops listening, which removes the socket, and removes the directory.
func (s *agentSocket) Close() error { return errors.Join(s.Listener.Close(), os.Remove(s.dir)) }
