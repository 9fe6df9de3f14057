package sessioncmd

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/client"
	"github.com/banger-vm/banger/internal/cli/app"
	"github.com/banger-vm/banger/internal/cli/attach"
	"github.com/banger-vm/banger/internal/errkind"
)

// newSignal returns `banger vm session signal`.
func newSignal(a *app.App) *cobra.Command {
	cmd := &cobra.Command{
		Use: "signal VM SESSION SIGNAL", Short: "Send a signal to a session",
		Long:    `Send a signal to the process group of a session's command: a name such as USR1 or SIGUSR1, or a number.`,
		Example: `  banger vm session signal web server HUP`,
	}
	named(a, cmd, 3, "a VM, a session and a signal", func(ctx context.Context, c *client.Client, vm, session string, rest []string) error {
		return c.SessionSignal(ctx, api.SessionSignal{
			Ref: api.Ref{Ref: vm}, SessionSignal: guestapi.SessionSignal{SessionRef: ref(session), Signal: rest[0]},
		})
	})
	cmd.Args = app.Args(3, 3, "a VM, a session and a signal")
	return cmd
}

// newStop returns `banger vm session stop`.
func newStop(a *app.App) *cobra.Command {
	var grace time.Duration
	cmd := &cobra.Command{
		Use: "stop VM SESSION...", Short: "End sessions, by a signal first",
		Long: `End sessions with SIGTERM; what is left of their processes after --timeout is killed. It returns when they have ended.`, Example: `  banger vm session stop web server
  banger vm session stop web build test --timeout 1m`,
	}
	cmd.Flags().DurationVar(&grace, "timeout", 10*time.Second, "how long the command may take")
	return each(a, cmd, func(ctx context.Context, c *client.Client, vm, session string) error {
		if grace < time.Millisecond {
			return errkind.WithHint(errkind.New(api.KindInvalid, "--timeout %s is too short", grace), "`banger vm session kill` ends it at once")
		}
		return stop(ctx, c, vm, session, grace)
	})
}

func stop(ctx context.Context, c *client.Client, vm, session string, grace time.Duration) error {
	_, err := c.SessionStop(ctx, api.SessionStop{
		Ref: api.Ref{Ref: vm}, SessionStop: guestapi.SessionStop{SessionRef: ref(session), GraceMS: grace.Milliseconds()},
	})
	return err
}

// newKill returns `banger vm session kill`.
func newKill(a *app.App) *cobra.Command {
	cmd := &cobra.Command{
		Use: "kill VM SESSION...", Short: "End sessions at once",
		Long: `Kill all processes of sessions. It returns when they have ended.`, Example: `  banger vm session kill web server`,
	}
	return each(a, cmd, func(ctx context.Context, c *client.Client, vm, session string) error {
		return stop(ctx, c, vm, session, 0)
	})
}

// newDelete returns `banger vm session delete`.
func newDelete(a *app.App) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "delete VM SESSION...", Aliases: []string{"rm"}, Short: "Forget sessions and their logs",
		Long: `Forget sessions that have ended, with their logs. What they left running in the guest is killed. With --force they are killed first.`, Example: `  banger vm session delete web build
  banger vm session delete web server --force`,
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "kill those that run")
	return each(a, cmd, func(ctx context.Context, c *client.Client, vm, session string) error {
		return c.SessionDelete(ctx, api.SessionDelete{
			Ref: api.Ref{Ref: vm}, SessionDelete: guestapi.SessionDelete{SessionRef: ref(session), Force: force},
		})
	})
}

// newWait returns `banger vm session wait`.
func newWait(a *app.App) *cobra.Command {
	cmd := &cobra.Command{
		Use: "wait VM SESSION", Short: "Wait for a session, and end with its status",
		Long:    `Wait until a session has ended, and end with its exit status; with 128 and the signal's number when one ended it.`,
		Example: `  banger vm session wait web build && banger vm cp web:/srv/out .`,
	}
	return named(a, cmd, 2, "a VM and a session", func(ctx context.Context, c *client.Client, vm, session string, _ []string) error {
		s, err := c.SessionWait(ctx, vm, session)
		switch {
		case err != nil:
			return err
		case s.State == guestapi.SessionLost:
			return errkind.WithHint(errkind.New(api.KindGuest, "session %q was lost when its VM was restarted", s.Name),
				"`banger vm session logs %s %s` shows its output", vm, session)
		}
		return attach.Exit(a, *s.Exit)
	})
}
