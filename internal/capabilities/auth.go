package capabilities

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/host"
	"github.com/banger-vm/banger/internal/vm/capability"
	"golang.org/x/crypto/ssh"
)

// Auth lets banger's own key log in to a VM, and pins the VM's host key in a known_hosts file of its own.
type Auth struct {
	AuthorizedKey string // authorized_keys(5) line
}

// Name implements capability.Capability.
func (*Auth) Name() string { return "auth" }

// HostAlias is the name under which a VM's host key is pinned. It derives from the id, because names may be used again.
func HostAlias(id banger.VMID) string { return "banger-" + string(id) }

// KnownHosts is the path of the known_hosts file in a VM's directory.
func KnownHosts(dir string) string { return filepath.Join(dir, "known_hosts") }

// Attach implements capability.Capability.
func (a *Auth) Attach(_ context.Context, r *capability.Run) error {
	if r.Making {
		return nil // it lets nobody in
	}
	signer, err := ssh.ParsePrivateKey([]byte(r.VM.Spec.HostKey))
	if err != nil {
		return fmt.Errorf("host key: %w", err)
	}
	line := fmt.Sprintf("%s %s", HostAlias(r.VM.ID), ssh.MarshalAuthorizedKey(signer.PublicKey()))
	if err := host.WriteFile(KnownHosts(r.Dir), []byte(line), 0o600); err != nil {
		return err
	}
	r.Boot.HostKey = string(r.VM.Spec.HostKey)
	r.Boot.AuthorizedKeys = []string{a.AuthorizedKey}
	return nil
}

// Detach implements capability.Capability. The pinned key stays for the next start.
func (*Auth) Detach(context.Context, *capability.Run) error { return nil }

// Destroy removes the known_hosts file.
func (*Auth) Destroy(_ context.Context, r *capability.Run) error {
	if err := os.Remove(KnownHosts(r.Dir)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
