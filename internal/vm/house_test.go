package vm_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/agent/call"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/capabilities"
	"github.com/banger-vm/banger/internal/disk"
	"github.com/banger-vm/banger/internal/disk/sparse"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/failpoint"
	"github.com/banger-vm/banger/internal/guest/guesttest"
	"github.com/banger-vm/banger/internal/hostnet/publish"
	"github.com/banger-vm/banger/internal/initramfs"
	"github.com/banger-vm/banger/internal/opstate"
	"github.com/banger-vm/banger/internal/store"
	"github.com/banger-vm/banger/internal/store/storetest"
	"github.com/banger-vm/banger/internal/vm"
	"github.com/banger-vm/banger/internal/vm/capability"
	"github.com/banger-vm/banger/internal/vm/template"
	"github.com/banger-vm/banger/internal/vmm"
	"github.com/banger-vm/banger/internal/vmm/fake"
)

// house is a VM service on a fake computer: real store, real chain, real disks, a machine in memory and an agent in the
// test process. It survives "restarts" of its daemon.
type house struct {
	t         *testing.T
	dir       string
	store     *store.Store
	ops       *opstate.Registry
	host      *fake.Host
	vms       *vm.Service
	image     banger.Image
	kernel    banger.Kernel
	tree      atomic.Value // tree id that the guest reports for its workspace
	steps     []string
	chain     *capability.Chain
	templates *template.Library

	idleAfter    time.Duration // Defaults.AutoStop
	stubborn     atomic.Bool   // the guest does not power off when it is asked
	sick         atomic.Value  // what root disks report, a string; empty: nothing is wrong
	became       atomic.Value  // id of the VM that a template's guest became last
	session      atomic.Bool   // a session runs in guests
	sessionAsked atomic.Int32  // how often guests were asked for their sessions
	refuses      atomic.Bool   // a template's guest becomes nobody
	asked        atomic.Int32  // how often guests were asked what they use
	powerOffs    atomic.Int32  // how often guests were asked to power off
}

func newHouse(t *testing.T) *house {
	t.Helper()
	dir, err := os.MkdirTemp("", "bgr") // short: sockets live below it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	h := &house{t: t, dir: dir, store: storetest.New(t)}
	h.tree.Store("base")
	h.host = fake.NewHost(fake.Config{Agent: h.serveAgent, Console: "Linux version 6.1\n"})
	h.image = banger.Image{
		ID: "aaaaaaaaaaaa", Name: "debian", Managed: true, Kernel: "k", Rootfs: h.file("rootfs.ext4", 1<<16),
		RootSize: 1 << 16, WorkSeed: h.file("seed.ext4", 1<<16), WorkSize: 1 << 16,
	}
	h.kernel = banger.Kernel{ID: "bbbbbbbbbbbb", Name: "k", Release: "6.1", Image: h.file("vmlinux", 10)}
	if err := errors.Join(h.store.PutKernel(t.Context(), h.kernel), h.store.PutImage(t.Context(), h.image)); err != nil {
		t.Fatal(err)
	}
	h.open("")
	return h
}

func (h *house) file(name string, size int64) string {
	path := filepath.Join(h.dir, name)
	if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
		h.t.Fatal(err)
	}
	return path
}

// open starts a daemon's VM service on what is there, with failpoints.
func (h *house) open(points string) {
	h.t.Helper()
	set, err := failpoint.Parse(points)
	if err != nil {
		h.t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	drivers := map[string]vmm.Driver{fake.Name: h.host.Driver()}
	ports := publish.New(func(id banger.VMID) func() { return h.vms.Use(context.Background(), string(id)) }, log)
	h.t.Cleanup(ports.CloseAll)
	chain := capability.NewChain([]capability.Capability{
		&capabilities.Disks{Cloners: map[string]disk.Cloner{"copy": sickly{sparse.New(), &h.sick}}},
		capabilities.UserNIC{},
		&capabilities.Auth{AuthorizedKey: "ssh-ed25519 AAAA test"},
		&capabilities.Boot{Builder: initramfs.New(filepath.Join(h.dir, "cache"), h.file("agent", 100))},
		&capabilities.Machine{Drivers: drivers},
		&capabilities.Agent{Log: log},
		capabilities.Ports{Open: ports},
	}, set, log)
	h.steps, h.chain = chain.Steps(), chain
	h.templates = template.New(template.Config{
		Dir: filepath.Join(h.dir, "templates"), RunDir: func(id banger.VMID) string { return filepath.Join(h.dir, "template-run", string(id)) },
		Chain: chain, Agent: func() (string, error) { return "digest", nil }, On: true, Budget: 1 << 40,
		Known: func(context.Context, template.Key) bool { return true }, Busy: func() bool { return false }, Points: set, Log: log,
	})
	if err := os.MkdirAll(filepath.Join(h.dir, "templates"), 0o700); err != nil {
		h.t.Fatal(err)
	}
	h.ops = opstate.New(h.store, log)
	h.vms = vm.New(vm.Config{
		Store: h.store, Images: images{h}, Kernels: kernels{h}, Drivers: drivers, Auto: fake.Name, Chain: chain, Ports: ports, Templates: h.templates, Points: set,
		Ops: h.ops, Dirs: dirs(h.dir), HostCPUs: 2, Log: log,
		Defaults: vm.Defaults{
			VCPU: 1, MemMiB: 256, NAT: true, AutoStop: h.idleAfter,
			Cloner: func([]string) (string, error) { return "copy", nil },
		},
	})
	h.t.Cleanup(h.vms.Close)
	if err := h.vms.Reconcile(h.t.Context(), capabilities.ReadHandle); err != nil {
		h.t.Fatal(err)
	}
}

// restart ends the daemon's service without telling the VMs, and opens another.
func (h *house) restart(points string) {
	h.t.Helper()
	h.vms.Close()
	h.open(points)
}

func (h *house) serveAgent(ctx context.Context, spec vmm.Spec, conn net.Conn) {
	tree := func(context.Context, *call.Call) (any, error) {
		now := h.tree.Load().(string)
		return guestapi.WorkStatus{Tree: now, Git: true, Changed: now != "base"}, nil
	}
	handlers := map[string]call.Handler{
		guestapi.MethodHello: func(context.Context, *call.Call) (any, error) {
			return guestapi.Hello{VMID: string(spec.ID), BootID: "boot-of-" + string(spec.ID), NetworkUp: true}, nil
		},
		guestapi.MethodBecome: func(_ context.Context, c *call.Call) (any, error) {
			var p guestapi.Become
			if err := c.Params(&p); err != nil || h.refuses.Load() {
				return nil, errors.Join(err, errkind.New(api.KindGuest, "not today"))
			}
			h.became.Store(p.Config.VMID)
			return guestapi.Hello{VMID: p.Config.VMID}, nil
		},
		guestapi.MethodStats: func(context.Context, *call.Call) (any, error) {
			h.asked.Add(1)
			return guestapi.Stats{MemTotal: 256 << 20, MemAvailable: 200 << 20, Processes: 7}, nil
		},
		guestapi.MethodPowerOff: func(context.Context, *call.Call) (any, error) {
			h.powerOffs.Add(1)
			if !h.stubborn.Load() {
				go h.host.PowerOff(spec.ID)
			}
			return api.Empty{}, nil
		},
		guestapi.MethodSessionList: func(context.Context, *call.Call) (any, error) {
			h.sessionAsked.Add(1)
			state := guestapi.SessionExited
			if h.session.Load() {
				state = guestapi.SessionRunning
			}
			return guestapi.SessionList{Sessions: []guestapi.Session{{ID: "111111111111", State: state}}}, nil
		},
		guestapi.MethodWorkStat: tree,
		guestapi.MethodWorkIn: func(_ context.Context, c *call.Call) (any, error) {
			return nil, c.Accept(api.Empty{})
		},
	}
	guesttest.ServeConn(ctx, conn, handlers) //nolint:errcheck // ends with the machine
}

// create makes a VM and waits for it.
func (h *house) create(p api.VMCreate) (banger.VM, error) {
	h.t.Helper()
	op, err := h.vms.BeginCreate(p)
	if err != nil {
		return banger.VM{}, err
	}
	done, err := h.ops.Wait(h.t.Context(), op.ID)
	if err != nil {
		h.t.Fatal(err)
	}
	if done.Error != nil {
		return banger.VM{}, done.Error
	}
	return h.vms.Get(h.t.Context(), done.Subject)
}

func (h *house) must(v banger.VM, err error) banger.VM {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
	return v
}

func (h *house) state(ref string) banger.State {
	h.t.Helper()
	return h.must(h.vms.Get(h.t.Context(), ref)).State
}

// wait waits until the VM is in a state: watchers work in the background.
func (h *house) wait(ref string, want banger.State) {
	h.t.Helper()
	h.eventually(ref+" is "+want.String(), func() bool { return h.state(ref) == want })
}

// eventually waits until ok, which something in the background brings about.
func (h *house) eventually(what string, ok func() bool) {
	h.t.Helper()
	for range 1000 {
		if ok() {
			return
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-h.t.Context().Done():
		}
	}
	h.t.Fatalf("not seen in time: %s", what)
}

// empty fails the test if anything of a VM is left: machine, row, directory.
func (h *house) empty() {
	h.t.Helper()
	if left := h.host.Running(); len(left) > 0 {
		h.t.Errorf("machines are left: %v", left)
	}
	if vms, err := h.vms.List(h.t.Context()); err != nil || len(vms) > 0 {
		h.t.Errorf("records are left: %v %v", vms, err)
	}
	for _, sub := range []string{"vms", "run"} {
		if entries, err := os.ReadDir(filepath.Join(h.dir, sub)); err == nil && len(entries) > 0 {
			h.t.Errorf("directories are left in %s: %v", sub, entries)
		}
	}
}

type dirs string

func (d dirs) VMsDir() string                 { return filepath.Join(string(d), "vms") }
func (d dirs) VMDir(id banger.VMID) string    { return filepath.Join(string(d), "vms", string(id)) }
func (d dirs) VMRunDir(id banger.VMID) string { return filepath.Join(string(d), "run", string(id)) }
func (d dirs) PatchesDir() string             { return string(d) }

// sickly is a cloner whose clones report what the house says.
type sickly struct {
	disk.Cloner
	err *atomic.Value
}

func (s sickly) Inspect(_ context.Context, v disk.Volume) error {
	if text, _ := s.err.Load().(string); text != "" && filepath.Base(v.Path) == "root" {
		return errors.New(text)
	}
	return nil
}

type images struct{ h *house }

func (i images) Get(context.Context, string) (banger.Image, error) { return i.h.image, nil }
func (i images) EnsureDefault(context.Context, opstate.Reporter) (banger.Image, error) {
	return i.h.image, nil
}

type kernels struct{ h *house }

func (k kernels) Get(context.Context, string) (banger.Kernel, error) { return k.h.kernel, nil }
func (k kernels) EnsureDefault(context.Context, opstate.Reporter) (banger.Kernel, error) {
	return k.h.kernel, nil
}
