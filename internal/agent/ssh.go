package agent

import (
	"context"
	"net"
	"os"
	"strconv"

	"github.com/banger-vm/banger/api/guestapi"
)

// imageSSHD is the SSH server of an image that runs its own init: it gets the port.
const imageSSHD = "/usr/sbin/sshd"

// listenSSH serves SSH on the guest's port, unless another server has it or is meant to. Over the control channel it is
// served in any case.
func (a *Agent) listenSSH(ctx context.Context) {
	defer a.ssh.decide(false)
	if a.config().Init != guestapi.InitAgent {
		if _, err := os.Stat(imageSSHD); err == nil {
			return
		}
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", ":"+strconv.Itoa(guestapi.SSHPort))
	if err != nil {
		a.journal.Warn("listen for SSH", err)
		return
	}
	a.ssh.decide(true)
	a.journal.Phase("SSH listening")
	if err := a.sshServer.Serve(ctx, listener); err != nil {
		a.log.Error("serve SSH", "err", err)
	}
}
