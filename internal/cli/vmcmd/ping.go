package vmcmd

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/cli/app"
)

type pingOptions struct {
	app  *app.App
	out  app.Output
	refs []string
}

// NewPing returns `banger vm ping`.
func NewPing(a *app.App) *cobra.Command {
	o := &pingOptions{app: a}
	cmd := &cobra.Command{
		Use: "ping VM...", Short: "Ask whether VMs answer", Args: app.Args(1, -1, "a VM"),
		Long: `Ask the agents of running VMs for an answer, and show how long each took from the daemon to the guest and back. The exit status
tells whether all answered.`,
		Example:           `  banger vm ping web && echo up`,
		ValidArgsFunction: a.CompleteVMs(-1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.refs = args
			return runPing(cmd.Context(), o)
		},
	}
	o.out.Flags(cmd)
	return cmd
}

// answer is one VM's, as -o json shows it.
type answer struct {
	Name string `json:"name"`
	api.VMPing
}

func runPing(ctx context.Context, o *pingOptions) error {
	c, err := o.app.Client(ctx)
	if err != nil {
		return err
	}
	ping := func(ctx context.Context, ref string) (answer, error) {
		p, err := c.VMPing(ctx, ref)
		return answer{Name: ref, VMPing: p}, err
	}
	return app.ShowEach(ctx, o.app, o.out, o.refs, ping, func(a answer) (string, []app.Field) {
		return a.Name, []app.Field{{Name: "VM", Value: a.Name}, {Name: "Round trip", Value: fmt.Sprintf("%.1f ms", float64(a.RTTMicros)/1000)}}
	})
}
