package daemon

import (
	"context"
	"fmt"
	"strings"

	"github.com/banger-vm/banger/internal/doctor"
	"github.com/banger-vm/banger/internal/host"
	"github.com/banger-vm/banger/internal/preflight"
	"github.com/banger-vm/banger/internal/vmm"
	"golang.org/x/sys/unix"
)

// checks are the questions of `banger doctor`, in the order in which a start would meet them.
func (d *Daemon) checks() []doctor.Check {
	return []doctor.Check{
		{Name: "vmm", Ask: d.checkEngine},
		{Name: "kvm", Ask: d.checkKVM},
		{Name: "programs", Ask: d.checkPrograms},
		{Name: "disk-space", Ask: d.checkSpace},
		{Name: "cloner", Ask: func(context.Context) (string, error) { return d.cloner.Name + ": " + d.cloner.Why, nil }},
		{Name: "kernel", Ask: d.checkKernel},
		{Name: "image", Ask: d.checkImage},
		{Name: "vms", Ask: d.checkVMs},
	}
}

func (d *Daemon) checkEngine(ctx context.Context) (string, error) {
	// Only what does not depend on a VM is of interest: a spec that is good in itself, without files.
	err := preflight.Refuse(d.engine.auto.Check(ctx, vmm.Spec{VCPU: 1, MemMiB: 256, Kernel: "/", Initrd: "/"}))
	return d.engine.auto.Features().Engine, err
}

func (d *Daemon) checkKVM(context.Context) (string, error) {
	f := d.engine.auto.Features()
	if f.AccelHint == "" {
		return f.AccelWhy, nil
	}
	return "", doctor.Warning(f.AccelHint, "%s", f.AccelWhy)
}

func (d *Daemon) checkPrograms(context.Context) (string, error) {
	var missing []string
	for _, p := range []string{"mmdebstrap", "mke2fs", "e2fsck", "dpkg-deb", "apt-get", "depmod"} {
		if _, err := host.LookPath(p); err != nil {
			missing = append(missing, p)
		}
	}
	if len(missing) > 0 {
		return "", doctor.Warning("images and kernels cannot be built without them; `make deps` installs them",
			"not installed: %s", strings.Join(missing, ", "))
	}
	return "everything that images and kernels are built with is installed", nil
}

// lowSpace is how many free bytes in the state directory are too few to go on comfortably.
const lowSpace = 2 << 30

func (d *Daemon) checkSpace(context.Context) (string, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(d.opts.Paths.State, &st); err != nil {
		return "", err
	}
	free := int64(st.Bavail) * st.Bsize
	if free < lowSpace {
		return "", doctor.Warning("delete VMs or images, or move banger with BANGER_ROOT",
			"%d MiB free in %s", free>>20, d.opts.Paths.State)
	}
	return fmt.Sprintf("%.1f GiB free in %s", float64(free)/(1<<30), d.opts.Paths.State), nil
}

func (d *Daemon) checkKernel(ctx context.Context) (string, error) {
	all, err := d.kernels.List(ctx)
	if err != nil {
		return "", err
	}
	for _, k := range all {
		if _, err := host.Allocated(k.Image); err != nil {
			return "", fmt.Errorf("kernel %q is damaged: %w; import it anew", k.Name, err)
		}
	}
	if len(all) == 0 {
		return "none yet; the first VM imports one", nil
	}
	return fmt.Sprintf("%d, among them %s (%s)", len(all), all[0].Name, all[0].Release), nil
}

func (d *Daemon) checkImage(ctx context.Context) (string, error) {
	all, err := d.images.List(ctx)
	if err != nil {
		return "", err
	}
	for _, img := range all {
		if _, err := host.Allocated(img.Rootfs); err != nil {
			return "", fmt.Errorf("image %q is damaged: %w; build it anew", img.Name, err)
		}
	}
	if len(all) == 0 {
		return "none yet; the first VM builds one", nil
	}
	return fmt.Sprintf("%d, among them %s", len(all), all[0].Name), nil
}

func (d *Daemon) checkVMs(ctx context.Context) (string, error) {
	vms, err := d.vms.List(ctx)
	if err != nil {
		return "", err
	}
	var bad []string
	for _, v := range vms {
		if v.LastError != "" {
			bad = append(bad, fmt.Sprintf("%s (%s): %s", v.Name, v.State, v.LastError))
		}
	}
	if len(bad) > 0 {
		return "", doctor.Warning("`banger vm show NAME` and `banger vm logs NAME` tell more", "%s", strings.Join(bad, "; "))
	}
	return fmt.Sprintf("%d, none with an error", len(vms)), nil
}
