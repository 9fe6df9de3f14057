package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/client"
	"github.com/banger-vm/banger/internal/cli/app"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/preflight"
)

type doctorOptions struct {
	app *app.App
	out app.Output
	fix bool
	ask api.DoctorAsk
}

func newDoctor(a *app.App) *cobra.Command {
	o := &doctorOptions{app: a}
	cmd := &cobra.Command{
		Use: "doctor", Short: "Check what this host offers and what is missing", Args: app.Args(0, 0, ""),
		Long: `Check the host, the daemon and everything it keeps: VMM, KVM, disks, network, images and kernels, the database, leftovers, VMs. Each
finding says what to do about it. Where the daemon cannot be reached, what could keep it from starting is checked.

With --fix, what is safe to is put right, and the finding says what was done: leftovers that no record claims are removed, directories
made and made private. Nothing of yours is touched.

The exit status is 0 when nothing failed (warnings are no failures, nor is what was fixed), and 1 otherwise.`,
		Example: `  banger doctor
  banger doctor --fix
  banger doctor --full -o json`,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return runDoctor(cmd.Context(), o) },
	}
	f := cmd.Flags()
	f.BoolVar(&o.fix, "fix", false, "put right what is safe to, and say what was done")
	f.BoolVar(&o.ask.Full, "full", false, "read all files of images and kernels, and compare their digests")
	o.out.Flags(cmd)
	return cmd
}

func runDoctor(ctx context.Context, o *doctorOptions) error {
	checks, err := diagnose(ctx, o)
	if err != nil {
		return err
	}
	err = app.PrintList(o.app, o.out, checks, app.Table[api.Check]{
		Name: func(c api.Check) string { return c.Name },
		Columns: []app.Column[api.Check]{
			{Head: "CHECK", Cell: func(c api.Check) string { return c.Name }},
			{Head: "STATUS", Cell: func(c api.Check) string { return c.Status }},
			{Head: "DETAIL", Cell: func(c api.Check) string { return strings.Join(strings.Fields(c.Detail), " ") }}, // on one line
		},
	})
	if err != nil {
		return err
	}
	if o.out.Form == "table" && o.out.Template == "" && !o.out.Quiet {
		printFixes(o.app.Out, checks)
	}
	failed := 0
	for _, c := range checks {
		if c.Status == preflight.Fail {
			failed++
		}
	}
	if failed > 0 {
		fmt.Fprintf(o.app.Err, "banger: doctor: %d failed\n", failed)
		return app.ExitError{Code: 1}
	}
	return nil
}

// printFixes prints what to do about each finding, once.
func printFixes(w io.Writer, checks []api.Check) {
	var last string
	for _, c := range checks {
		line := c.Name + ": " + c.Fix + "\n"
		if c.Fix != "" && line != last {
			io.WriteString(w, line)
		}
		last = line
	}
}

// diagnose asks the daemon. When it cannot be reached, that is a finding, and what may be the reason is checked from here;
// with fix it is tried again once.
func diagnose(ctx context.Context, o *doctorOptions) ([]api.Check, error) {
	c, err := o.app.Client(ctx)
	var local []api.Check
	if err != nil && ctx.Err() == nil {
		local = preflight.Report(ctx, localChecks(o.app), o.fix)
		if anyFixed(local) {
			c, err = o.app.Client(ctx)
		}
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return append([]api.Check{unreachable(err)}, local...), nil
	}
	ask := c.Doctor
	if o.fix {
		ask = c.Fix
	}
	d, err := ask(ctx, o.ask)
	if err != nil {
		return nil, err
	}
	for i := range local {
		if local[i].Status == preflight.Fixed {
			d.Checks = append(d.Checks, local[i])
		}
	}
	return append([]api.Check{versions(o.app.Version, c.Daemon())}, d.Checks...), nil
}

func anyFixed(checks []api.Check) bool {
	for _, c := range checks {
		if c.Status == preflight.Fixed {
			return true
		}
	}
	return false
}

// versions compares this program's version with the daemon's, which outlives an upgrade of the files.
func versions(own string, daemon api.Ping) api.Check {
	c := api.Check{Name: "daemon", Status: preflight.OK, Detail: fmt.Sprintf("version %s, pid %d", daemon.Version, daemon.PID)}
	if daemon.Version != own {
		c.Status = preflight.Warn
		c.Detail = fmt.Sprintf("the daemon (pid %d) is of version %s, and this program of %s", daemon.PID, daemon.Version, own)
		c.Fix = "restart it: `banger daemon stop`, and the next command starts the new one; VMs keep running"
	}
	return c
}

// unreachable is the finding of a daemon that cannot be reached or started. One that was not to be started is no failure.
func unreachable(err error) api.Check {
	c := api.Check{Name: "daemon", Status: preflight.Fail, Detail: err.Error(), Fix: errkind.Hint(err)}
	if errors.Is(err, client.ErrNotRunning) {
		c.Status = preflight.Warn
		c.Fix += "; then doctor can check what it keeps"
	}
	return c
}
