package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/banger-vm/banger/internal/cli/app"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/host"
)

func newWeb(a *app.App) *cobra.Command {
	var open bool
	cmd := &cobra.Command{
		Use: "web", Short: "Print a link to banger's web pages", Args: app.Args(0, 0, ""),
		Long: `Print a link that logs one browser in to the daemon's web pages, once, within five minutes. The browser stays logged in for 30 days.
The pages are served on a loopback address only: web_listen in the configuration says which, or off.`,
		Example: `  banger web --open
  ssh -L 7777:127.0.0.1:7777 server banger web     # and follow the link here`,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return runWeb(cmd.Context(), a, open) },
	}
	cmd.Flags().BoolVar(&open, "open", false, "open it in the browser too (xdg-open)")
	return cmd
}

func runWeb(ctx context.Context, a *app.App, open bool) error {
	c, err := a.Client(ctx)
	if err != nil {
		return err
	}
	login, err := c.WebLogin(ctx)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(a.Out, login.URL); err != nil || !open {
		return err
	}
	if err := host.Run(ctx, host.Command{Argv: []string{"xdg-open", login.URL}}); err != nil {
		return errkind.WithHint(fmt.Errorf("open the browser: %w", err), "open the link above yourself; it is good once")
	}
	return nil
}
