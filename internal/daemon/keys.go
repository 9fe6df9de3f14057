package daemon

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"os"
	"strings"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/host"
	"golang.org/x/crypto/ssh"
)

// keys is the key pair with which banger logs in to its guests.
type keys struct {
	private    string // path
	authorized string // authorized_keys(5) line
}

// openKeys reads the private key at path, and makes it when there is none. A key that cannot be read is never replaced.
func openKeys(path string) (keys, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		b, err = makeKey(path)
	}
	if err != nil {
		return keys{}, err
	}
	signer, err := ssh.ParsePrivateKey(b)
	if err != nil {
		return keys{}, errkind.WithHint(errkind.New(api.KindDataLoss, "the key %s is damaged: %w", path, err),
			"move it away; the daemon then makes a new one, which VMs take at their next start")
	}
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey())))
	return keys{private: path, authorized: line + " banger"}, nil
}

func makeKey(path string) ([]byte, error) {
	_, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	block, err := ssh.MarshalPrivateKey(priv, "banger")
	if err != nil {
		return nil, err
	}
	b := pem.EncodeToMemory(block)
	return b, host.WriteFile(path, b, 0o600)
}
