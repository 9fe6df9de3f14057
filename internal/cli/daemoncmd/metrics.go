package daemoncmd

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"github.com/banger-vm/banger/internal/cli/app"
)

func newMetrics(a *app.App) *cobra.Command {
	return &cobra.Command{
		Use: "metrics", Short: "Print the daemon's metrics", Args: app.Args(0, 0, ""),
		Long: `Print what the daemon has counted and timed, in the text format of Prometheus. The daemon is not started by this command. For a
monitor, set metrics_listen in the configuration, or ask the socket: curl --unix-socket SOCKET http://localhost/metrics`,
		Example: `  banger daemon metrics
  banger daemon metrics | grep banger_vms`,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return runMetrics(cmd.Context(), a) },
	}
}

func runMetrics(ctx context.Context, a *app.App) error {
	c, err := a.RunningClient(ctx, false)
	if err != nil {
		return err
	}
	text, err := c.Metrics(ctx)
	if err != nil {
		return err
	}
	_, err = io.WriteString(a.Out, text)
	return err
}
