package vmcmd

import (
	"context"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/client"
	"github.com/banger-vm/banger/internal/cli/app"
	"github.com/banger-vm/banger/internal/config"
	"github.com/banger-vm/banger/internal/errkind"
)

// AutoStopFlag is a flag value: a duration, never, or default.
type AutoStopFlag struct{ ms *int64 }

func (f *AutoStopFlag) String() string {
	switch {
	case f.ms == nil || *f.ms < 0:
		return ""
	case *f.ms == 0:
		return "never"
	}
	return (time.Duration(*f.ms) * time.Millisecond).String()
}

// Set parses v.
func (f *AutoStopFlag) Set(v string) error {
	switch v {
	case "default":
		f.ms = new(int64(-1))
		return nil
	case "never":
		f.ms = new(int64(0))
		return nil
	}
	d, err := config.ParseDuration(v)
	if err == nil && d < time.Second {
		err = errkind.WithHint(errkind.New(api.KindInvalid, "%s is less than a second", v), "write a duration as 30m or 12h, or never")
	}
	f.ms = new(d.Milliseconds())
	return err
}

// Type is the word that help shows for the value.
func (*AutoStopFlag) Type() string { return "duration" }

type setOptions struct {
	app                *app.App
	refs               []string
	p                  api.VMSet
	memory, root, disk app.SizeFlag
	nat                bool
	group              string
	publish            []string
	autoStop           AutoStopFlag
	env                []string
}

// NewSet returns `banger vm set`.
func NewSet(a *app.App) *cobra.Command {
	o := &setOptions{app: a}
	cmd := &cobra.Command{
		Use: "set [flags] VM...", Short: "Change VMs", Args: app.Args(1, -1, "a VM"),
		Long: `Change what VMs are. Processors, memory, disks, network and environment take effect at a start: a VM that runs is refused unless
--restart is given, which stops it, changes it and starts it again. Disks only grow; the guest grows its file systems by itself when it
starts. The name and --auto-stop change at once.`,
		Example: `  banger vm set web --memory 4G --vcpu 2 --restart
  banger vm set web --disk-size 40G
  banger vm set web --publish 8080:80 --group shop --restart
  banger vm set web --env TOKEN --unset-env DEBUG --restart
  banger vm set web db --auto-stop 2h`,
		ValidArgsFunction: a.CompleteVMs(-1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.refs = args
			return runSet(cmd.Context(), o, cmd)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.p.Name, "name", "", "another name, for one VM; its guest learns of it at the next start")
	f.IntVar(&o.p.VCPU, "vcpu", 0, "number of virtual processors")
	f.Var(&o.memory, "memory", "memory, such as 512M or 2G")
	f.Var(&o.disk, "disk-size", "size of the work disk at /root, at least what it has")
	f.Var(&o.root, "root-size", "size of the root disk, at least what it has")
	f.BoolVar(&o.nat, "nat", true, "whether the guest reaches the network outside")
	f.StringVar(&o.group, "group", "", "VMs of one group reach each other, in mode bridge; empty: none")
	f.StringArrayVarP(&o.publish, "publish", "p", nil, "[HOSTIP:]PORT:GUESTPORT, in place of all that were published; empty: none (repeatable)")
	f.StringArrayVarP(&o.env, "env", "e", nil, "NAME=VALUE, or NAME for your own value, to add or replace (repeatable)")
	f.StringArrayVar(&o.p.UnsetEnv, "unset-env", nil, "`name` of a variable to remove (repeatable)")
	f.Var(&o.autoStop, "auto-stop", "stop a VM when nobody has used it for so long, such as 30m; never; or default")
	f.BoolVar(&o.p.Restart, "restart", false, "restart VMs that run, where the change needs it")
	return cmd
}

func runSet(ctx context.Context, o *setOptions, cmd *cobra.Command) error {
	if o.p.Name != "" && len(o.refs) > 1 {
		return app.Usage(cmd.CommandPath(), "--name is for one VM, and %d were given", len(o.refs))
	}
	f := cmd.Flags()
	if f.Changed("vcpu") && o.p.VCPU < 1 {
		return errkind.New(api.KindInvalid, "--vcpu %d: a VM has at least one processor", o.p.VCPU)
	}
	if f.NFlag() == 0 || f.NFlag() == 1 && o.p.Restart {
		return app.Usage(cmd.CommandPath(), "nothing to change was given")
	}
	if f.Changed("nat") {
		o.p.NAT = &o.nat
	}
	if f.Changed("group") {
		o.p.Group = &o.group
	}
	if f.Changed("publish") {
		ports := slices.DeleteFunc(o.publish, func(s string) bool { return s == "" })
		o.p.Publish = &ports
	}
	o.p.MemMiB, o.p.RootSize, o.p.DiskSize, o.p.AutoStopMS = int(o.memory>>20), int64(o.root), int64(o.disk), o.autoStop.ms
	var err error
	if o.p.Env, err = o.app.Environment(o.env); err != nil {
		return err
	}
	return each(ctx, o.app, o.refs, func(ctx context.Context, c *client.Client, t app.Target) error {
		p := o.p
		p.Ref.Ref = t.ID
		_, err := c.VMSet(ctx, p)
		return err
	})
}
