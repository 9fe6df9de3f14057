package vm

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"

	"github.com/banger-vm/banger/internal/banger"
	"golang.org/x/crypto/ssh"
)

// newHostKey makes a VM's SSH host key: ed25519, in OpenSSH's PEM format. The agent gets it at boot; the daemon pins its
// public half, so nobody has to trust a key on first use.
func newHostKey(comment string) (banger.Secret, error) {
	_, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", err
	}
	block, err := ssh.MarshalPrivateKey(priv, comment)
	if err != nil {
		return "", err
	}
	return banger.Secret(pem.EncodeToMemory(block)), nil
}
