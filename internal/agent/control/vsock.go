package control

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/mdlayher/vsock"
	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/agent/call"
	"github.com/banger-vm/banger/internal/errkind"
)

// virtioDevices is where the kernel lists virtio devices; the file "device" of each has its number.
const virtioDevices = "/sys/bus/virtio/devices"

// vsockDevice is the number of socket devices (Virtual I/O Device specification 1.2, section 5.10.1).
const vsockDevice = "0x0013"

// HasVsock reports whether the machine has a vsock device. Its driver need not be loaded.
func HasVsock() bool { return hasDevice(virtioDevices, vsockDevice) }

func hasDevice(bus, number string) bool {
	entries, err := os.ReadDir(bus)
	if err != nil {
		return false
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(bus, e.Name(), "device"))
		if err == nil && strings.TrimSpace(string(b)) == number {
			return true
		}
	}
	return false
}

// Vsock listens for the host. Others in the guest that reach the port are turned away: who is heard here has the whole guest.
type Vsock struct{ net.Listener }

// OpenVsock listens on [guestapi.VsockPort], on whatever address the machine has.
func OpenVsock() (*Vsock, error) {
	l, err := vsock.ListenContextID(unix.VMADDR_CID_ANY, guestapi.VsockPort, nil)
	if errors.Is(err, unix.EAFNOSUPPORT) {
		return nil, errkind.WithHint(errkind.New(api.KindUnavailable, "the machine has a vsock device, and the kernel no driver for it: %w", err),
			"import the kernel again, or take one that has CONFIG_VIRTIO_VSOCKETS")
	}
	if err != nil {
		return nil, err
	}
	return &Vsock{l}, nil
}

// Accept returns the next connection from the host.
func (v *Vsock) Accept() (net.Conn, error) {
	for {
		conn, err := v.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if from, ok := conn.RemoteAddr().(*vsock.Addr); ok && from.ContextID == vsock.Host {
			return conn, nil
		}
		conn.Close()
	}
}

// Serve implements Channel.
func (v *Vsock) Serve(ctx context.Context, handlers map[string]call.Handler, log *slog.Logger) error {
	return serveNewest(ctx, v, handlers, log)
}

// serveNewest serves the connections that l accepts, until ctx ends, and closes l. A new one ends the one before, whose session is
// over before the new one's begins.
func serveNewest(ctx context.Context, l net.Listener, handlers map[string]call.Handler, log *slog.Logger) error {
	defer l.Close()
	defer context.AfterFunc(ctx, func() { l.Close() })()
	end := func() {}
	defer func() { end() }()
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return err
		}
		end()
		session, cancel := context.WithCancel(ctx)
		over := make(chan struct{})
		end = func() {
			cancel()
			<-over
		}
		go func() {
			defer close(over)
			if err := Serve(session, conn, handlers, log); err != nil {
				log.Debug("control connection ended", "err", err)
			}
		}()
	}
}
