// Package vmcmd is `banger vm` with one file a verb; `vm run` is package runcmd, `vm workspace` package workcmd.
package vmcmd

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/client"
	"github.com/banger-vm/banger/internal/cli/app"
)

// New returns `banger vm` with its verbs.
func New(a *app.App) *cobra.Command {
	cmd := &cobra.Command{
		Use: "vm", Short: "Create, use and delete VMs", Args: cobra.NoArgs,
		Long: `A VM is one microVM with a name, disks of its own and a life of its own: it may run or be stopped, and it keeps its disks
until it is deleted. VMs outlive the daemon and this program. A reference to a VM is its name, its id, or the beginning of its
id where only one VM has that.`,
	}
	cmd.AddCommand(NewCreate(a), NewStart(a), NewStop(a), NewRestart(a), NewPause(a), NewResume(a), NewKill(a), NewDelete(a), NewSet(a), NewList(a), NewShow(a), NewExec(a),
		NewSSH(a), NewLogs(a), NewCp(a), NewHealth(a), NewPing(a), NewStats(a), NewWait(a), NewPrune(a), NewPorts(a), NewDial(a), NewKnownHosts(a))
	return cmd
}

func resolver(c *client.Client) func(context.Context, string) (app.Target, error) {
	return func(ctx context.Context, ref string) (app.Target, error) {
		vm, err := c.VMGet(ctx, ref)
		return app.Target{ID: vm.ID, Name: vm.Name}, err
	}
}

func table(now time.Time) app.Table[api.VM] {
	return app.Table[api.VM]{
		Name: func(v api.VM) string { return v.Name },
		Columns: []app.Column[api.VM]{
			{Head: "NAME", Cell: func(v api.VM) string { return v.Name }},
			{Head: "ID", Cell: func(v api.VM) string { return v.ID }},
			{Head: "STATE", Cell: state},
			{Head: "IMAGE", Cell: func(v api.VM) string { return v.Image }},
			{Head: "VCPU", Cell: func(v api.VM) string { return fmt.Sprint(v.VCPU) }, Amount: func(v api.VM) int64 { return int64(v.VCPU) }},
			{Head: "MEMORY", Cell: memory, Amount: func(v api.VM) int64 { return int64(v.MemMiB) }},
			{Head: "ADDRESS", Cell: func(v api.VM) string { return v.Address }},
			{Head: "WORKSPACE", Cell: workspacePath},
			{Head: "AGE", Cell: func(v api.VM) string { return app.Age(now, v.Created) }, Amount: func(v api.VM) int64 { return -v.Created.UnixNano() }},
		},
	}
}

func state(v api.VM) string {
	if len(v.Conditions) == 0 {
		return v.State
	}
	types := make([]string, len(v.Conditions))
	for i, c := range v.Conditions {
		types[i] = c.Type
	}
	return v.State + " (" + strings.Join(types, ",") + ")"
}

func autoStop(v api.VM) string {
	if v.AutoStopMS == 0 {
		return "never"
	}
	return "after " + (time.Duration(v.AutoStopMS) * time.Millisecond).String() + " without use"
}

// startKind is warm, or cold with the reason.
func startKind(v api.VM) string {
	if v.StartWhy == "" {
		return v.Start
	}
	return v.Start + " (" + v.StartWhy + ")"
}

func memory(v api.VM) string { return app.Size(int64(v.MemMiB) << 20) }

func workspacePath(v api.VM) string {
	if v.Workspace == nil {
		return ""
	}
	return v.Workspace.GuestPath
}

func fields(v api.VM) []app.Field {
	f := []app.Field{
		{Name: "Name", Value: v.Name}, {Name: "ID", Value: v.ID}, {Name: "State", Value: state(v)},
		{Name: "Last error", Value: v.LastError}, {Name: "Image", Value: v.Image + " (" + v.ImageID + ")"},
		{Name: "Kernel", Value: v.Kernel + " (" + v.KernelID + ")"}, {Name: "VMM", Value: v.VMM},
		{Name: "Engine", Value: v.Engine}, {Name: "Start", Value: startKind(v)}, {Name: "Init", Value: v.Init}, {Name: "vCPU", Value: fmt.Sprint(v.VCPU)},
		{Name: "Memory", Value: memory(v)}, {Name: "Root disk", Value: app.Size(v.RootSize)},
		{Name: "Work disk", Value: app.Size(v.DiskSize)}, {Name: "NAT", Value: fmt.Sprint(v.NAT)},
		{Name: "Auto-stop", Value: autoStop(v)}, {Name: "Address", Value: v.Address}, {Name: "Group", Value: v.Group}, {Name: "Published", Value: strings.Join(v.Publish, "\n")}, {Name: "MAC", Value: v.MAC}, {Name: "Environment", Value: strings.Join(v.Env, "\n")},
		{Name: "Boot id", Value: v.BootID}, {Name: "Created", Value: app.Stamp(v.Created)},
		{Name: "Started", Value: app.Stamp(v.Started)}, {Name: "Stopped", Value: app.Stamp(v.Stopped)},
		{Name: "Last used", Value: app.Stamp(v.LastUsed)},
	}
	if v.PID != 0 {
		f = append(f, app.Field{Name: "PID", Value: fmt.Sprint(v.PID)})
	}
	for _, c := range v.Conditions {
		f = append(f, app.Field{Name: "Condition", Value: fmt.Sprintf("%s since %s: %s", c.Type, app.Stamp(c.Since), c.Message)})
	}
	if w := v.Workspace; w != nil {
		f = append(f, app.Field{Name: "Workspace", Value: w.GuestPath}, app.Field{Name: "  from", Value: w.Source},
			app.Field{Name: "  branch", Value: w.Branch}, app.Field{Name: "  base", Value: w.BaseCommit},
			app.Field{Name: "  exported", Value: app.Stamp(w.Exported)}, app.Field{Name: "  changes", Value: w.Changes})
	}
	return f
}
