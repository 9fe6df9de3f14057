// Package usernet describes the network that a guest sees on QEMU's user-mode stack (libslirp): a private /24 that every VM
// has to itself, with gateway and name server in the VMM. It needs no privilege and leaves nothing on the host. The host
// cannot reach the guest through it; banger reaches guests through the control channel.
//
// The addresses are QEMU's defaults ("User Networking" in qemu(1)), written down here once and given to QEMU explicitly.
package usernet

import "github.com/banger-vm/banger/api/guestapi"

// The addresses of the stack.
const (
	Network = "10.0.2.0/24"
	Address = "10.0.2.15"
	Gateway = "10.0.2.2"
	DNS     = "10.0.2.3"
)

// Guest returns the configuration of a guest whose interface has that MAC address.
func Guest(mac string) guestapi.Net {
	return guestapi.Net{MAC: mac, Address: Address + "/24", Gateway: Gateway, DNS: []string{DNS}}
}
