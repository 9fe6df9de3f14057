package control

import (
	"context"
	"log/slog"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/agent/call"
	"github.com/banger-vm/banger/internal/errkind"
)

// Channel is the guest's end of the control channel in the form that this machine has.
type Channel interface {
	// Serve serves hosts one after the other until ctx ends.
	Serve(ctx context.Context, handlers map[string]call.Handler, log *slog.Logger) error
}

// Open opens the control channel of this machine: a virtio-serial port, or vsock. An error of kind not-found means that there is
// neither (yet).
func Open() (Channel, error) {
	port, err := OpenPort(guestapi.PortName)
	if err == nil {
		return port, nil
	}
	if !errkind.Is(err, api.KindNotFound) || !HasVsock() {
		return nil, err
	}
	v, err := OpenVsock()
	if err != nil {
		return nil, err
	}
	return v, nil
}
