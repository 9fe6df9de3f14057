package sessioncmd

import (
	"context"
	"crypto/rand"

	"github.com/spf13/cobra"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/client"
	"github.com/banger-vm/banger/internal/cli/app"
	"github.com/banger-vm/banger/internal/cli/attach"
)

// newAttach returns `banger vm session attach`.
func newAttach(a *app.App) *cobra.Command {
	var p api.SessionAttach
	var keys string
	replay := app.SizeFlag(16 << 10)
	cmd := &cobra.Command{
		Use: "attach VM SESSION", Short: "Join a session",
		Long: `Join a session: see what it writes, after the last of what it has written, and type into it. It goes on when you leave, by the keys
of --detach-keys at a terminal, or by a signal, and this program ends with its exit status when it ends. One client writes, others
may watch with --read-only; --take takes the place of the one that writes. When the daemon is restarted, this program comes back
by itself and misses nothing.`,
		Example: `  banger vm session attach web agent
  banger vm session attach web build --read-only --replay 1M`,
	}
	named(a, cmd, 2, "a VM and a session", func(ctx context.Context, c *client.Client, vm, session string, _ []string) error {
		detach, err := attach.ParseKeys(keys)
		if err != nil {
			return err
		}
		p.Ref.Ref, p.Session, p.Replay, p.Client = vm, session, int64(replay), rand.Text()
		st, err := attach.Session(ctx, a, c, p, detach)
		if err != nil {
			return err
		}
		return attach.Exit(a, st)
	})
	f := cmd.Flags()
	f.BoolVar(&p.ReadOnly, "read-only", false, "watch, and send nothing")
	f.BoolVar(&p.Take, "take", false, "take the place of the client that writes")
	f.StringVar(&keys, "detach-keys", "ctrl-p,ctrl-q", "keys that leave the session at a terminal")
	f.Var(&replay, "replay", "how much of the latest output to begin with")
	return cmd
}
