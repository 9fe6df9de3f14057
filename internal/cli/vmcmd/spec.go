package vmcmd

import (
	"github.com/spf13/cobra"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/cli/app"
	"github.com/banger-vm/banger/internal/errkind"
)

// Spec is the flags that say what VM to create; `vm create` and `vm run` have them.
type Spec struct {
	name, image, kernel, vmm, init string
	vcpu                           int
	memory, disk, root             app.SizeFlag
	nat                            bool
	group                          string
	publish                        []string
	autoStop                       AutoStopFlag
	env                            []string
	cold                           bool
	cmd                            *cobra.Command
}

// Flags declares the flags on cmd.
func (s *Spec) Flags(a *app.App, cmd *cobra.Command) {
	s.cmd = cmd
	f := cmd.Flags()
	f.StringVarP(&s.name, "name", "n", "", "the VM's name, a DNS label (default: two random words)")
	f.StringVar(&s.image, "image", "", "image to clone (default: default_image of the configuration; built when missing)")
	f.StringVar(&s.kernel, "kernel", "", "kernel to boot (default: the image's)")
	f.StringVar(&s.vmm, "vmm", "", "VMM to run it: auto, qemu or firecracker (default: the configuration's)")
	f.StringVar(&s.init, "init", "", "PID 1 of the guest: agent, or a path such as /sbin/init (default: the image's)")
	f.IntVar(&s.vcpu, "vcpu", 0, "number of virtual processors (default: the configuration's)")
	f.Var(&s.memory, "memory", "memory, such as 512M or 2G (default: the configuration's)")
	f.Var(&s.disk, "disk-size", "size of the work disk at /root, such as 10G (default: the configuration's)")
	f.Var(&s.root, "root-size", "size of the root disk, such as 4G (default: the image's)")
	f.BoolVar(&s.nat, "nat", true, "let the guest reach the network outside; --nat=false does not")
	f.StringVar(&s.group, "group", "", "VMs of one group reach each other, in mode bridge; others do not")
	f.StringArrayVarP(&s.publish, "publish", "p", nil, "[HOSTIP:]PORT:GUESTPORT, listen on this host (127.0.0.1) for a port of the guest (repeatable)")
	f.Var(&s.autoStop, "auto-stop", "stop the VM when nobody has used it for so long, such as 30m, or never (default: auto_stop_after of the configuration)")
	f.BoolVar(&s.cold, "cold", false, "boot it in any case, and do not begin with a template")
	f.StringArrayVarP(&s.env, "env", "e", nil, "NAME=VALUE, or NAME for your own value, set for every command in the guest (repeatable)")
	cmd.RegisterFlagCompletionFunc("image", app.FlagCompletion(a.CompleteImages(-1)))
	cmd.RegisterFlagCompletionFunc("kernel", app.FlagCompletion(a.CompleteKernels(-1)))
	cmd.RegisterFlagCompletionFunc("vmm", cobra.FixedCompletions([]string{"auto", "qemu", "firecracker"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.RegisterFlagCompletionFunc("init", cobra.FixedCompletions([]string{"agent", "/sbin/init"}, cobra.ShellCompDirectiveNoFileComp))
}

// Create checks the flags and returns the parameters they mean.
func (s *Spec) Create(a *app.App) (api.VMCreate, error) {
	p := api.VMCreate{Name: s.name, Image: s.image, Kernel: s.kernel, VMM: s.vmm, Init: s.init, VCPU: s.vcpu,
		MemMiB: int(s.memory >> 20), RootSize: int64(s.root), DiskSize: int64(s.disk)}
	if s.name != "" {
		if err := banger.CheckName("VM", s.name); err != nil {
			return p, err
		}
	}
	if s.cmd.Flags().Changed("vcpu") && s.vcpu < 1 {
		return p, errkind.New(api.KindInvalid, "--vcpu %d: a VM has at least one processor", s.vcpu)
	}
	if s.memory != 0 && s.memory < 1<<20 {
		return p, errkind.WithHint(errkind.New(api.KindInvalid, "--memory %s is less than 1M", s.memory.String()),
			"give a unit, such as --memory 512M")
	}
	p.Group, p.Publish, p.Cold = s.group, s.publish, s.cold
	for _, text := range s.publish {
		if _, err := banger.ParsePublish(text); err != nil {
			return p, err
		}
	}
	if s.cmd.Flags().Changed("nat") {
		p.NAT = &s.nat
	}
	if s.autoStop.ms != nil && *s.autoStop.ms >= 0 {
		p.AutoStopMS = s.autoStop.ms
	}
	env, err := a.Environment(s.env)
	p.Env = env
	return p, err
}
