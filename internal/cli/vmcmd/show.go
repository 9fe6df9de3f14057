package vmcmd

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/client"
	"github.com/banger-vm/banger/internal/cli/app"
)

type listOptions struct {
	app     *app.App
	out     app.Output
	sel     app.Selection
	running bool
}

// NewList returns `banger vm list`.
func NewList(a *app.App) *cobra.Command {
	o := &listOptions{app: a}
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List VMs", Args: app.Args(0, 0, ""),
		Long: `List all VMs, oldest first, with their states. JSON and YAML hold everything that "banger vm show" does. Filters and sorting go
by what the columns show.`,
		Example: `  banger vm list
  banger vm list --running -q
  banger vm list --filter 'name=web*' --filter state!=running --sort -memory --columns name,state,memory
  banger vm list --format '{{.Name}} {{.MemMiB}}'`,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return runList(cmd.Context(), o) },
	}
	o.out.Flags(cmd)
	o.sel.Flags(cmd)
	cmd.Flags().BoolVarP(&o.running, "running", "r", false, "only those that run")
	return cmd
}

func runList(ctx context.Context, o *listOptions) error {
	c, err := o.app.Client(ctx)
	if err != nil {
		return err
	}
	vms, err := c.VMList(ctx)
	if err != nil {
		return err
	}
	if o.running {
		vms = slices.DeleteFunc(vms, func(v api.VM) bool { return v.State != "running" })
	}
	vms, t, err := app.Select(o.sel, vms, table(time.Now()))
	if err != nil {
		return err
	}
	return app.PrintList(o.app, o.out, vms, t)
}

// NewShow returns `banger vm show`.
func NewShow(a *app.App) *cobra.Command {
	return app.Show(a, &cobra.Command{
		Use: "show VM...", Short: "Show all about VMs", Args: app.Args(1, -1, "a VM"),
		Long: `Show everything that is known of VMs: what they were made from, sizes, state with the last error, addresses, workspace.
With -o json each VM is an object with the field names of the API.`,
		Example: `  banger vm show web
  banger vm show web --format '{{.Address}}'`,
		ValidArgsFunction: a.CompleteVMs(-1),
	}, (*client.Client).VMGet, func(v api.VM) (string, []app.Field) { return v.Name, fields(v) })
}

type lookOptions struct {
	app *app.App
	out app.Output
	ref string
}

// NewHealth returns `banger vm health`.
func NewHealth(a *app.App) *cobra.Command {
	o := &lookOptions{app: a}
	cmd := &cobra.Command{
		Use: "health VM", Short: "Ask a VM's agent how the guest is", Args: app.Args(1, 1, "one VM"),
		Long: `Ask the agent in a running VM for its kernel, the phases of its boot, what did not work, and what the guest uses: load,
memory, disks, network.`,
		Example:           `  banger vm health web`,
		ValidArgsFunction: a.CompleteVMs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.ref = args[0]
			return runHealth(cmd.Context(), o)
		},
	}
	o.out.Flags(cmd)
	return cmd
}

func runHealth(ctx context.Context, o *lookOptions) error {
	c, err := o.app.Client(ctx)
	if err != nil {
		return err
	}
	h, err := c.VMHealth(ctx, o.ref)
	if err != nil {
		return err
	}
	s := h.Stats
	f := []app.Field{
		{Name: "Agent", Value: h.Version}, {Name: "Kernel", Value: h.Kernel}, {Name: "Init", Value: string(h.Init)},
		{Name: "Boot id", Value: h.BootID}, {Name: "Network", Value: upDown(h.NetworkUp)}, {Name: "SSH", Value: upDown(h.SSHUp)},
		{Name: "Up", Value: (time.Duration(s.UptimeMS) * time.Millisecond).Round(time.Second).String()},
		{Name: "Load", Value: fmt.Sprintf("%.2f", s.Load1)}, {Name: "Processes", Value: fmt.Sprint(s.Processes)},
		{Name: "Memory", Value: fmt.Sprintf("%s free of %s", app.Size(s.MemAvailable), app.Size(s.MemTotal))},
	}
	for _, d := range s.Disks {
		f = append(f, app.Field{Name: "Disk " + d.Target, Value: fmt.Sprintf("%s used of %s", orZero(app.Size(d.Used)), app.Size(d.Size))})
	}
	for _, p := range h.Phases {
		f = append(f, app.Field{Name: "Boot " + p.Name, Value: fmt.Sprintf("at %.2fs", float64(p.AtMS)/1000)})
	}
	for _, w := range h.Warnings {
		f = append(f, app.Field{Name: "Warning", Value: w})
	}
	return app.PrintOne(o.app, o.out, h, o.ref, f)
}

func upDown(up bool) string {
	if up {
		return "up"
	}
	return "down"
}

func orZero(s string) string {
	if s == "" {
		return "0"
	}
	return s
}

// NewPorts returns `banger vm ports`.
func NewPorts(a *app.App) *cobra.Command {
	o := &lookOptions{app: a}
	cmd := &cobra.Command{
		Use: "ports VM", Short: "List what listens in a VM", Args: app.Args(1, 1, "one VM"),
		Long: `List the sockets that listen in a running VM, with the process behind each. URL is where a browser on this host finds a TCP port:
under the VM's name in mode bridge, else where it is published.`,
		Example:           `  banger vm ports web`,
		ValidArgsFunction: a.CompleteVMs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.ref = args[0]
			return runPorts(cmd.Context(), o)
		},
	}
	o.out.Flags(cmd)
	return cmd
}

func runPorts(ctx context.Context, o *lookOptions) error {
	c, err := o.app.Client(ctx)
	if err != nil {
		return err
	}
	ports, err := c.VMPorts(ctx, o.ref)
	if err != nil {
		return err
	}
	return app.PrintList(o.app, o.out, ports, portTable())
}

func portTable() app.Table[api.VMPort] {
	return app.Table[api.VMPort]{
		Name: func(p api.VMPort) string { return fmt.Sprint(p.Port) },
		Columns: []app.Column[api.VMPort]{
			{Head: "PORT", Cell: func(p api.VMPort) string { return fmt.Sprint(p.Port) }},
			{Head: "NETWORK", Cell: func(p api.VMPort) string { return p.Network }},
			{Head: "ADDRESS", Cell: func(p api.VMPort) string { return p.Address }},
			{Head: "PID", Cell: func(p api.VMPort) string { return number(p.PID) }},
			{Head: "PROCESS", Cell: func(p api.VMPort) string { return p.Process }},
			{Head: "PUBLISHED", Cell: func(p api.VMPort) string { return strings.Join(p.Published, ",") }},
			{Head: "URL", Cell: func(p api.VMPort) string { return p.URL }},
		},
	}
}

func number(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}
