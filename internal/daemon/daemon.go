// Package daemon is bangerd's composition root: it opens everything in order, reconciles, serves, and closes in reverse.
// It holds no rule of its own.
//
// The order of a start: lock → store → host facts → network → services → reconcile (adopt machines, remove leftovers, mark
// interrupted operations) → listen. The order of a stop: stop listening → let calls finish → end operations → let go of
// the machines, which run on → store → lock.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/capabilities"
	"github.com/banger-vm/banger/internal/config"
	"github.com/banger-vm/banger/internal/disk"
	"github.com/banger-vm/banger/internal/disk/dmsnap"
	"github.com/banger-vm/banger/internal/disk/ext4"
	"github.com/banger-vm/banger/internal/disk/qcow2"
	"github.com/banger-vm/banger/internal/disk/reflink"
	"github.com/banger-vm/banger/internal/disk/sparse"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/failpoint"
	"github.com/banger-vm/banger/internal/host"
	"github.com/banger-vm/banger/internal/hostnet"
	"github.com/banger-vm/banger/internal/imagemgr"
	"github.com/banger-vm/banger/internal/initramfs"
	"github.com/banger-vm/banger/internal/kernels"
	"github.com/banger-vm/banger/internal/metrics"
	"github.com/banger-vm/banger/internal/opstate"
	"github.com/banger-vm/banger/internal/rpcserver"
	"github.com/banger-vm/banger/internal/session"
	"github.com/banger-vm/banger/internal/store"
	"github.com/banger-vm/banger/internal/vm"
	"github.com/banger-vm/banger/internal/vm/capability"
	"github.com/banger-vm/banger/internal/vm/meter"
	"github.com/banger-vm/banger/internal/vm/scratch"
	"github.com/banger-vm/banger/internal/vm/template"
	"github.com/banger-vm/banger/internal/web"
	"golang.org/x/sys/unix"
)

// Options is what a daemon is started with.
type Options struct {
	Paths      config.Paths
	Config     *config.Config
	Agent      string // path of the banger-agent binary
	Version    string
	Failpoints failpoint.Set
	Log        *slog.Logger
}

// Daemon is a daemon that was opened.
type Daemon struct {
	opts    Options
	log     *slog.Logger
	started time.Time
	stop    context.CancelFunc // ends Run
	stopped context.Context

	metrics   *metrics.Metrics
	lock      *os.File
	group     int // whose members may call, or -1
	store     *store.Store
	ops       *opstate.Registry
	engine    engine
	cloner    disk.Choice
	net       network
	keys      keys
	initramfs *initramfs.Builder
	images    *imagemgr.Manager
	kernels   *kernels.Manager
	vms       *vm.Service
	meter     *meter.Meter
	templates *template.Library
	scratch   *scratch.Maker
	server    *rpcserver.Server
	web       webUI
	closers   []func() // in the order of opening
}

// Open takes the lock, opens the store and makes the state right. On error nothing is held.
func Open(ctx context.Context, o Options) (_ *Daemon, err error) {
	d := &Daemon{opts: o, log: o.Log, started: time.Now().UTC()}
	d.stopped, d.stop = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			d.Close()
		}
	}()
	for _, step := range []struct {
		name string
		open func(context.Context) error
	}{
		{"directories", d.openPaths}, {"store", d.openStore}, {"keys", d.openKeys}, {"host", d.probeHost},
		{"images", d.openImages}, {"network", d.openNetwork}, {"vms", d.openVMs},
	} {
		begun := time.Now()
		if err := step.open(ctx); err != nil {
			return nil, fmt.Errorf("open %s: %w", step.name, err)
		}
		d.log.Debug("opened", "step", step.name, "took", time.Since(begun))
	}
	d.server = rpcserver.New(rpcserver.Methods(rpcserver.Services{
		Daemon: d, VMs: d.vms, Meter: d.meter, Sessions: session.New(d.vms, d.store, d.log), Templates: d.templates, Images: imageService{d.images, d.store, d.templates, d.log}, Kernels: kernelService{d.kernels, d.store, d.templates, d.log}, Ops: d.ops,
		Events: d.store,
	}), d.authorize, d.log)
	d.server.Observe(d.metrics)
	d.server.HandleHTTP(web.Handler(d.metrics))
	d.web.ui, err = web.NewUI(web.UIConfig{Connect: d.connect, Key: o.Paths.WebKey(), Stopped: d.stopped, Log: o.Log})
	return d, err
}

func (d *Daemon) onClose(fn func()) { d.closers = append(d.closers, fn) }

// Close lets go of everything in reverse. Machines keep running.
func (d *Daemon) Close() {
	for i := len(d.closers) - 1; i >= 0; i-- {
		d.closers[i]()
	}
	d.closers = nil
}

func (d *Daemon) openPaths(context.Context) error {
	if err := d.opts.Paths.Make(); err != nil {
		return err
	}
	lock, err := d.takeLock()
	if errkind.Is(err, api.KindBusy) {
		return errkind.WithHint(errkind.New(api.KindBusy, "another daemon uses %s: %w", d.opts.Paths.State, err),
			"`banger daemon status` shows it; set BANGER_ROOT to another directory to have a second one")
	}
	if err != nil {
		return err
	}
	d.lock = lock
	if d.group, err = d.opts.Paths.SocketGroup(); err != nil {
		return err
	}
	d.onClose(func() { lock.Close() })
	return nil
}

// lockPatience is how long a daemon waits for one that is ending: the kernel lets go of the lock of a process that was killed when its
// last thread is gone, which is after its sockets.
const lockPatience = 2 * time.Second

// takeLock takes the lock. One that is held by a daemon that serves is of kind busy at once.
func (d *Daemon) takeLock() (*os.File, error) {
	for begun := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		lock, err := host.Lock(d.opts.Paths.Lock())
		if !errkind.Is(err, api.KindBusy) || time.Since(begun) > lockPatience {
			return lock, err
		}
		if conn, dialErr := net.Dial("unix", d.opts.Paths.Socket()); dialErr == nil {
			conn.Close()
			return nil, err
		}
	}
}

func (d *Daemon) openStore(ctx context.Context) error {
	s, err := store.Open(ctx, d.opts.Paths.DB())
	if err != nil {
		return err
	}
	d.store = s
	d.onClose(func() { s.Close() })
	interrupted, err := s.InterruptOperations(ctx)
	if err != nil {
		return err
	}
	for _, op := range interrupted {
		d.log.Warn("operation was interrupted", "op", op.ID, "kind", op.Kind, "subject", op.Subject)
	}
	if err := s.PruneOperations(ctx, keepOperations); err != nil {
		return err
	}
	if s.Fresh() {
		if err := d.refuseLostDatabase(); err != nil {
			return err
		}
	}
	db := d.opts.Paths.DB()
	d.metrics = metrics.New(d.opts.Version, metrics.Sources{
		VMs: s.ListVMs, StoreFiles: []string{db, db + "-wal"}, Log: d.log,
		LastEvent: func(ctx context.Context) (int64, error) { return s.ResumeEvents(ctx, 0) },
	})
	d.ops = opstate.New(s, d.log, d.metrics)
	d.onClose(func() {
		ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
		defer cancel()
		d.ops.Close(ctx)
	})
	return nil
}

// keepOperations is how many ended operations are remembered.
const keepOperations = 1000

// refuseLostDatabase keeps a daemon with a new database from taking the VMs of a lost one for leftovers.
func (d *Daemon) refuseLostDatabase() error {
	p := d.opts.Paths
	for _, dir := range []string{p.VMsDir(), p.ImagesDir(), p.KernelsDir()} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		if len(entries) > 0 {
			return errors.Join(os.Remove(p.DB()), errkind.WithHint(
				errkind.New(api.KindDataLoss, "%s has files, but the database %s is gone", dir, p.DB()),
				"restore the database, or move %s away to start afresh", p.State))
		}
	}
	return nil
}

// drainTimeout bounds how long a stop waits for calls and operations.
const drainTimeout = 30 * time.Second

func (d *Daemon) openKeys(context.Context) (err error) {
	d.keys, err = openKeys(d.opts.Paths.SSHKey())
	return err
}

// probeHost finds out, once, what this host offers.
func (d *Daemon) probeHost(ctx context.Context) (err error) {
	d.net.choice, err = hostnet.Choose(hostnet.Facts{
		Forced: d.opts.Config.Network.Mode, System: d.opts.Paths.System, Bars: hostnet.Probe(),
	})
	if err != nil {
		return err
	}
	d.engine = openEngine(ctx, d.opts, d.net.choice.Mode == hostnet.ModeBridge, d.log)
	d.cloner, err = d.chooseCloner()
	return err
}

// chooseCloner chooses for VMs that name no VMM.
func (d *Daemon) chooseCloner() (disk.Choice, error) {
	return d.chooseClonerFor(d.engine.auto.Features().Formats)
}

func (d *Daemon) chooseClonerFor(formats []string) (disk.Choice, error) {
	return disk.Choose(disk.Facts{
		Forced: d.opts.Config.Disk.Cloner, Reflink: reflink.Probe(d.opts.Paths.VMsDir()), DMSnap: dmsnap.Probe(), Formats: formats,
	})
}

func (d *Daemon) openImages(ctx context.Context) error {
	p := d.opts.Paths
	d.initramfs = initramfs.New(p.InitramfsCache(), d.opts.Agent)
	d.kernels = kernels.New(kernels.Config{
		Dir: p.KernelsDir(), CacheDir: p.Cache, Store: d.store, Bases: d.initramfs, Log: d.log,
	})
	d.images = imagemgr.New(imagemgr.Config{
		Dir: p.ImagesDir(), CacheDir: p.Cache, Store: d.store, Kernels: d.kernels, Guests: scratchGuests{d}, Points: d.opts.Failpoints, Log: d.log,
	})
	return errors.Join(d.kernels.Sweep(ctx), d.images.Sweep(ctx))
}

func (d *Daemon) openVMs(ctx context.Context) error {
	c := d.opts.Config
	drivers := d.engine.drivers
	chain := capability.NewChain(slices.Concat(
		[]capability.Capability{&capabilities.Disks{Cloners: cloners(), Fresh: freshDisk}},
		d.net.capabilities(),
		[]capability.Capability{
			&capabilities.Auth{AuthorizedKey: d.keys.authorized},
			&capabilities.Boot{Builder: d.initramfs},
			&capabilities.Machine{Drivers: drivers},
			&capabilities.Agent{Log: d.log},
			capabilities.Ports{Open: d.net.ports},
		}), d.opts.Failpoints, d.log)
	d.templates = template.New(template.Config{
		Dir: d.opts.Paths.TemplatesDir(), RunDir: d.opts.Paths.TemplateRunDir, Chain: chain, Agent: d.initramfs.AgentDigest,
		On: c.WarmStarts, Taps: d.engine.taps, Budget: int64(c.TemplateBudget), Known: d.knows, Busy: d.ops.Busy, Points: d.opts.Failpoints, Log: d.log,
	})
	d.openScratch()
	d.vms = vm.New(vm.Config{
		Store: d.store, Images: d.images, Kernels: d.kernels, Drivers: drivers, Auto: d.engine.auto.Name(),
		Chain: chain, Ports: d.net.ports, Templates: d.templates, Points: d.opts.Failpoints, Ops: d.ops, Dirs: d.opts.Paths, HostCPUs: runtime.NumCPU(), Log: d.log,
		Taps: d.engine.taps,
		Defaults: vm.Defaults{
			Image: c.DefaultImage, Kernel: c.Kernel, VCPU: c.VMDefaults.VCPU, MemMiB: int(c.VMDefaults.Memory >> 20),
			RootSize: int64(c.VMDefaults.RootSize), WorkSize: int64(c.VMDefaults.DiskSize), NAT: c.Network.NAT, Network: d.net.prefix(),
			AutoStop: time.Duration(c.AutoStop),
			Cloner: func(formats []string) (string, error) {
				choice, err := d.chooseClonerFor(formats)
				return choice.Name, err
			},
		},
	})
	d.onClose(d.vms.Close)
	d.meter = meter.New(meter.Config{VMs: d.vms, Chain: chain, Every: time.Duration(c.StatsInterval), Log: d.log})
	err := errors.Join(d.templates.Sweep(ctx), d.scratch.Sweep(ctx), d.vms.Reconcile(ctx, capabilities.ReadHandle))
	pruneTemplates(ctx, d.templates, d.log)
	return err
}

// knows reports whether image and kernel of a template are still there.
func (d *Daemon) knows(ctx context.Context, k template.Key) bool {
	_, imageErr := d.images.Get(ctx, string(k.ImageID))
	_, kernelErr := d.kernels.Get(ctx, string(k.KernelID))
	return imageErr == nil && kernelErr == nil
}

// Run serves until ctx ends or Stop is called, then drains.
func (d *Daemon) Run(ctx context.Context) error {
	l, err := listen(d.opts.Paths.Socket(), d.group)
	if err != nil {
		return err
	}
	waitWeb, err := d.serveWeb()
	if err != nil {
		return errors.Join(err, l.Close())
	}
	defer waitWeb()
	d.log.Info("listening", "socket", d.opts.Paths.Socket(), "version", d.opts.Version, "engine", d.engine.auto.Features().Engine)
	d.notify("READY=1")
	unhook := context.AfterFunc(ctx, d.stop)
	defer unhook()
	calls, endCalls := context.WithCancel(context.WithoutCancel(ctx))
	defer endCalls()
	context.AfterFunc(d.stopped, func() { l.Close() })
	var background sync.WaitGroup
	background.Go(func() { d.vms.ReapIdle(d.stopped) })
	background.Go(func() { d.vms.MarkLogs(d.stopped) })
	background.Go(func() { d.vms.InspectRunning(d.stopped) })
	background.Go(func() { d.meter.Sample(d.stopped) })
	background.Go(func() { d.templates.Make(d.stopped) })
	if d.net.bridge != nil {
		background.Go(func() { d.net.bridge.Run(d.stopped) })
	}
	defer background.Wait()
	err = d.server.Serve(calls, l)
	d.log.Info("stopping")
	d.notify("STOPPING=1")
	drain, cancel := context.WithTimeout(context.Background(), callGrace)
	defer cancel()
	context.AfterFunc(drain, endCalls)
	d.server.Shutdown(drain)
	return err
}

// callGrace is how long a stop lets calls under way finish before their contexts end. Streams do not finish by themselves.
const callGrace = 2 * time.Second

// notify tells the service manager, if there is one. That it cannot be told is no reason to end; it will have its own.
func (d *Daemon) notify(state string) {
	if err := host.Notify(state); err != nil {
		d.log.Warn("service manager not told", "state", state, "err", err)
	}
}

// listen opens the socket, private from birth, and then lets the members of group in, unless that is -1. A socket file that is
// there is stale: the lock is ours.
func listen(path string, group int) (*net.UnixListener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	old := unix.Umask(0o177)
	defer unix.Umask(old)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil || group < 0 {
		return l, err
	}
	if err := errors.Join(os.Chown(path, -1, group), os.Chmod(path, 0o660)); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// authorize lets the daemon's own user and root do everything, members of its group use it, and nobody else do anything.
func (d *Daemon) authorize(c rpcserver.Caller) rpcserver.Class {
	switch {
	case c.UID == 0 || int(c.UID) == os.Geteuid():
		return rpcserver.Admin
	case d.group >= 0 && slices.Contains(c.Groups, uint32(d.group)):
		return rpcserver.Write
	}
	return 0
}

func cloners() map[string]disk.Cloner {
	all := map[string]disk.Cloner{}
	for _, c := range []disk.Cloner{reflink.New(), qcow2.New(), dmsnap.New(), sparse.New()} {
		all[c.Name()] = c
	}
	return all
}

func freshDisk(ctx context.Context, path string, size int64) error {
	return ext4.Empty(ctx, path, ext4.Options{Size: size, Label: "work"})
}

// imageService and kernelService tell the managers who uses what: one knows the files, the other the records.
type imageService struct {
	*imagemgr.Manager
	store     *store.Store
	templates *template.Library
	log       *slog.Logger
}

func (s imageService) Users(ctx context.Context, id banger.ImageID) ([]string, error) {
	return s.store.VMsUsingImage(ctx, id)
}

func (s imageService) Delete(ctx context.Context, ref string) error {
	err := s.Manager.Delete(ctx, ref, s.store.VMsUsingImage)
	if err == nil {
		pruneTemplates(ctx, s.templates, s.log)
	}
	return err
}

// pruneTemplates removes the templates of what was deleted. They are never used again, so a failure can wait for the next time.
func pruneTemplates(ctx context.Context, t *template.Library, log *slog.Logger) {
	if _, err := t.PruneUseless(ctx); err != nil {
		log.Warn("remove templates of what was deleted", "err", err)
	}
}

type kernelService struct {
	*kernels.Manager
	store     *store.Store
	templates *template.Library
	log       *slog.Logger
}

func (s kernelService) Users(ctx context.Context, name string) ([]string, error) {
	return s.store.ImagesUsingKernel(ctx, name)
}

func (s kernelService) Delete(ctx context.Context, ref string) error {
	err := s.Manager.Delete(ctx, ref, func(ctx context.Context, k banger.Kernel) ([]string, error) {
		images, err := s.store.ImagesUsingKernel(ctx, k.Name)
		vms, vmErr := s.store.VMsUsingKernel(ctx, k.ID)
		return append(images, vms...), errors.Join(err, vmErr)
	})
	if err == nil {
		pruneTemplates(ctx, s.templates, s.log)
	}
	return err
}
