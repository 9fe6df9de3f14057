package systemcmd

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/cli/app"
	"github.com/banger-vm/banger/internal/config"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/host"
)

type uninstallOptions struct {
	app                *app.App
	target             target
	purge, yes, orphan bool
}

func newUninstall(a *app.App) *cobra.Command {
	o := &uninstallOptions{app: a}
	cmd := &cobra.Command{
		Use: "uninstall", Short: "Remove the system's daemon", Args: app.Args(0, 0, ""),
		Long: `Stop and disable the service and remove what "banger system install" wrote. A file that was changed since is kept, and said. VMs, images,
configuration and the group stay; --purge removes them as well, after it has listed them and asked.

It refuses while VMs run; --orphan leaves them running without a daemon, until banger is installed again.`,
		Example: `  sudo banger system uninstall
  sudo banger system uninstall --purge --yes`,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return runUninstall(cmd.Context(), o) },
	}
	f := cmd.Flags()
	f.BoolVar(&o.purge, "purge", false, "remove VMs, images, kernels, cache, configuration and group, too")
	f.BoolVarP(&o.yes, "yes", "y", false, "do not ask before --purge")
	f.BoolVar(&o.orphan, "orphan", false, "go on although VMs run, and leave them running")
	cmd.MarkFlagsMutuallyExclusive("purge", "orphan")
	rootFlag(cmd, &o.target)
	return cmd
}

func runUninstall(ctx context.Context, o *uninstallOptions) error {
	if o.target.root == "" {
		if err := checkHost("uninstall"); err != nil {
			return err
		}
	}
	m, err := o.target.read()
	if err != nil {
		return err
	}
	if len(m.Files) == 0 && !(o.purge && o.target.hasData()) {
		return errNotInstalled
	}
	if !o.orphan {
		if err := o.target.refuseRunning(); err != nil {
			return err
		}
	}
	if o.purge {
		if err := o.confirmPurge(); err != nil {
			return err
		}
	}
	kept, err := o.remove(ctx, m)
	if err != nil {
		return err
	}
	return o.sayKept(kept)
}

// remove stops the service and removes what was installed, and with --purge the rest. It returns the files that it kept.
func (o *uninstallOptions) remove(ctx context.Context, m *manifest) ([]string, error) {
	live, group := o.target.root == "", m.Group
	if _, err := os.Lstat(unitPath); live && err == nil { // somebody may have removed it
		if err := systemctl(ctx, "disable", "--now", unit); err != nil {
			return nil, err
		}
	}
	kept, err := o.target.remove(m)
	if err != nil {
		return kept, err
	}
	if live {
		if err := systemctl(ctx, "daemon-reload"); err != nil {
			return kept, err
		}
	}
	o.target.removeEmpty()
	if !o.purge {
		return kept, nil
	}
	if err := o.target.refuseRunning(); err != nil { // one may have started while the daemon still ran
		return kept, err
	}
	return kept, o.removeData(ctx, live && group)
}

// refuseRunning refuses while machines run. They are found without the daemon, which need not run: by their handles, which are
// believed only when the kernel agrees.
func (t target) refuseRunning() error {
	handles, err := filepath.Glob(config.MachineFile(filepath.Join(t.path(config.SystemPaths().VMsDir()), "*")))
	if err != nil {
		return err
	}
	running := 0
	for _, path := range handles {
		var h struct {
			PID       int    `json:"pid"`
			StartTime uint64 `json:"start_time"`
		}
		b, err := os.ReadFile(path)
		if err == nil {
			err = json.Unmarshal(b, &h)
		}
		if err != nil {
			return fmt.Errorf("find out whether VMs run: %w", err)
		}
		if started, err := host.StartTime(h.PID); err == nil && started == h.StartTime {
			running++
		}
	}
	if running == 0 {
		return nil
	}
	return errkind.WithHint(errkind.New(api.KindPrecondition, "VMs run: %d", running),
		"stop them with `banger vm stop`, or leave them running without a daemon with --orphan")
}

// data are the directories that the system's daemon fills.
func (t target) data() []string {
	p := config.SystemPaths()
	return []string{t.path(p.State), t.path(p.Cache), t.path(p.Etc), t.path(p.Run)}
}

func (t target) hasData() bool {
	for _, dir := range t.data() {
		if _, err := os.Lstat(dir); err == nil {
			return true
		}
	}
	return false
}

// removeEmpty removes directories that the daemon and tmpfiles.d have made, where nothing is in them.
func (t target) removeEmpty() {
	p := config.SystemPaths()
	_ = os.Remove(t.path(p.Socket()) + ".start") // a lock of the CLI's; nobody has it when there is no daemon to start
	for _, dir := range []string{p.VMRunsDir(), p.Run, p.Etc, p.State} {
		_ = os.Remove(t.path(dir)) // fails where something is in it
	}
}

// confirmPurge lists what goes and asks.
func (o *uninstallOptions) confirmPurge() error {
	for _, dir := range o.target.data() {
		mount, err := mountBelow(dir)
		if err != nil {
			return err
		}
		if mount != "" {
			return errkind.WithHint(errkind.New(api.KindBusy, "a file system is mounted at %s", mount), "unmount it first: what is on it would be removed")
		}
		if n, err := usage(dir); err == nil {
			fmt.Fprintln(o.app.Err, strings.TrimSpace("removes "+dir+" "+app.Size(n)))
		}
	}
	vms, err := filepath.Glob(filepath.Join(o.target.path(config.SystemPaths().VMsDir()), "*"))
	if err != nil {
		return err
	}
	fmt.Fprintf(o.app.Err, "among it the disks of %d VMs\n", len(vms))
	if o.yes {
		return nil
	}
	if !o.app.InTTY {
		return errkind.WithHint(errkind.New(api.KindInvalid, "--purge removes all VMs, images and configuration, and nobody can be asked"), "say --yes")
	}
	fmt.Fprint(o.app.Err, "Remove all VMs, images and configuration of the system's banger? [y/N] ")
	line, err := bufio.NewReader(o.app.In).ReadString('\n')
	if answer := strings.ToLower(strings.TrimSpace(line)); err != nil || answer != "y" && answer != "yes" {
		return errkind.New(api.KindCanceled, "nothing was removed")
	}
	return nil
}

// mountBelow returns a mount point at dir or below it, if there is one (proc_pid_mountinfo(5)).
func mountBelow(dir string) (string, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		if len(f) > 4 && (f[4] == dir || strings.HasPrefix(f[4], dir+"/")) {
			return f[4], nil
		}
	}
	return "", nil
}

// usage adds up what the files below dir take on disk.
func usage(dir string) (sum int64, err error) {
	err = filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		n, err := host.Allocated(path)
		sum += n
		return err
	})
	return sum, err
}

// removeData is what --purge is for.
func (o *uninstallOptions) removeData(ctx context.Context, group bool) error {
	for _, dir := range o.target.data() {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	if !group {
		return nil
	}
	err := host.Run(ctx, host.Command{Argv: []string{"groupdel", config.Group}})
	return errkind.WithHint(err, "everything else is removed; remove the group yourself if you want to")
}

// sayKept says what is left.
func (o *uninstallOptions) sayKept(kept []string) error {
	for _, path := range kept {
		fmt.Fprintf(o.app.Err, "kept %s: it was changed since it was installed\n", path)
	}
	if o.purge {
		return nil
	}
	var errs []error
	for _, dir := range o.target.data() {
		if _, err := os.Lstat(dir); err == nil {
			_, err := fmt.Fprintf(o.app.Err, "kept %s; `banger system uninstall --purge` removes it\n", dir)
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
