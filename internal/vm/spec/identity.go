package spec

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"encoding/pem"
	"fmt"

	"github.com/banger-vm/banger/internal/banger"
	"golang.org/x/crypto/ssh"
)

// Identify returns spec with an identity of its own: SSH host key, machine-id (machine-id(5)) and MAC address.
func Identify(spec banger.Spec, id banger.VMID) (banger.Spec, error) {
	key, err := newHostKey(string(id))
	if err != nil {
		return spec, err
	}
	spec.HostKey, spec.MachineID, spec.MAC = key, newMachineID(), macOf(id)
	return spec, nil
}

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

// macOf derives a VM's MAC address from its id: locally administered, unicast (IEEE 802-2014, 8.2.2).
func macOf(id banger.VMID) string {
	b, err := hex.DecodeString(string(id))
	if err != nil || len(b) < 5 {
		panic("spec: id " + string(id) + " is not hex")
	}
	return fmt.Sprintf("52:%02x:%02x:%02x:%02x:%02x", b[0], b[1], b[2], b[3], b[4])
}

func newMachineID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}
