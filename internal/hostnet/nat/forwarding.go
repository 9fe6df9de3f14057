package nat

import (
	"errors"
	"fmt"
	"os"

	"github.com/banger-vm/banger/internal/host"
)

// forwardSwitch is the kernel's switch for IPv4 forwarding (Documentation/networking/ip-sysctl.rst).
const forwardSwitch = "/proc/sys/net/ipv4/ip_forward"

// Forward lets the host forward IPv4 packets. If it was banger that switched this on, the file at record says so, durably and
// before the switch is turned, so that [Unforward] turns it back and nothing else does.
func Forward(record string) error {
	if Forwarding() {
		return nil
	}
	if err := host.WriteFile(record, []byte("banger switched IPv4 forwarding on; it was off\n"), 0o600); err != nil {
		return fmt.Errorf("let the host forward packets: %w", err)
	}
	return turn("1")
}

// Unforward undoes what Forward did, and may be repeated.
func Unforward(record string) error {
	if _, err := os.Stat(record); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err := turn("0"); err != nil {
		return err
	}
	return os.Remove(record)
}

func turn(to string) error {
	if err := os.WriteFile(forwardSwitch, []byte(to), 0); err != nil {
		return fmt.Errorf("switch IPv4 forwarding to %s: %w", to, err)
	}
	return nil
}
