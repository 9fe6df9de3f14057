package control

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/agent/call"
	"github.com/banger-vm/banger/internal/errkind"
)

// ports is where the kernel lists virtio-serial ports (Documentation/ABI/testing/sysfs-class-virtio-ports would be its
// place; drivers/char/virtio_console.c has the attribute "name").
const ports = "/sys/class/virtio-ports"

// Port is a virtio-serial port. While no host has its other end open, a read returns io.EOF and a write waits.
type Port struct{ *os.File }

// OpenPort opens the virtio-serial port called name. An error of kind not-found means there is none (yet). A port can be
// open once: a second open gives EBUSY.
func OpenPort(name string) (*Port, error) { return openPort(ports, "/dev", name) }

func openPort(class, dev, name string) (*Port, error) {
	entries, err := os.ReadDir(class)
	if err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(class, e.Name(), "name"))
		if err != nil || strings.TrimSpace(string(b)) != name {
			continue
		}
		f, err := os.OpenFile(filepath.Join(dev, e.Name()), os.O_RDWR, 0)
		if os.IsNotExist(err) { // the kernel makes its node later, and /dev is away for a moment when the root is entered
			return nil, errkind.Wrap(api.KindNotFound, err)
		}
		if err != nil {
			return nil, err
		}
		return &Port{f}, nil
	}
	return nil, errkind.New(api.KindNotFound, "no virtio-serial port is called %q", name)
}

// WaitHost returns when a host has opened its end, or with ctx's error. It does not poll: the kernel wakes the port's
// waiters when the host comes (handle_control_message in drivers/char/virtio_console.c), and the port is then writable,
// which Go's edge-triggered epoll sees. While the host is away, poll(2) says POLLHUP.
func (p *Port) WaitHost(ctx context.Context) error {
	raw, err := p.SyscallConn()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { p.SetDeadline(time.Unix(1, 0)) })
	err = raw.Write(func(fd uintptr) bool { return !hungUp(int(fd)) })
	if !stop() {
		return ctx.Err()
	}
	return err
}

func hungUp(fd int) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	for {
		_, err := unix.Poll(fds, 0)
		if err != syscall.EINTR {
			return err == nil && fds[0].Revents&unix.POLLHUP != 0
		}
	}
}

// LocalAddr and RemoteAddr make a Port a net.Conn.
func (p *Port) LocalAddr() net.Addr  { return portAddr(p.Name()) }
func (p *Port) RemoteAddr() net.Addr { return portAddr(p.Name()) }

type portAddr string

func (portAddr) Network() string  { return "virtio-serial" }
func (a portAddr) String() string { return string(a) }

// keepOpen hides the port's Close from [Serve]: the port is opened once and serves every host.
type keepOpen struct{ *Port }

func (k keepOpen) Close() error { return k.SetDeadline(time.Unix(1, 0)) }

// Serve implements Channel.
func (p *Port) Serve(ctx context.Context, handlers map[string]call.Handler, log *slog.Logger) error {
	for {
		if err := p.WaitHost(ctx); err != nil {
			return err
		}
		if err := Serve(ctx, keepOpen{p}, handlers, log); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := p.SetDeadline(time.Time{}); err != nil {
			return err
		}
	}
}
