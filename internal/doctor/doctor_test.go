package doctor_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/agent/call"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/config"
	"github.com/banger-vm/banger/internal/disk"
	"github.com/banger-vm/banger/internal/doctor"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/guest"
	"github.com/banger-vm/banger/internal/guest/guesttest"
	"github.com/banger-vm/banger/internal/host"
	"github.com/banger-vm/banger/internal/preflight"
	"github.com/banger-vm/banger/internal/store"
	"github.com/banger-vm/banger/internal/vmm"
	"github.com/banger-vm/banger/internal/vmm/qemu"
)

// clinic is a computer on which all is well: real files, a real database, programs that say what they must, and a name server.
type clinic struct {
	t      *testing.T
	cfg    doctor.Config
	bin    string
	image  banger.Image
	kernel banger.Kernel
	vms    vms
	kvm    error // why KVM does not work; nil: it does
}

func newClinic(t *testing.T) *clinic {
	t.Helper()
	h := &clinic{t: t, bin: t.TempDir()}
	root, err := os.MkdirTemp("", "bgd") // short: sockets live below it
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(root) })
	t.Setenv("PATH", h.bin)
	for _, p := range []string{"mmdebstrap", "mke2fs", "e2fsck", "dpkg-deb", "apt-get", "depmod"} {
		h.program(p, "exit 0")
	}
	h.program("qemu-system-x86_64", "echo QEMU emulator version 8.2.1")
	paths, err := config.FindPaths(func(name string) (string, bool) { return root, name == "BANGER_ROOT" })
	must(t, err)
	must(t, paths.Make())
	h.image = banger.Image{ID: "aaaaaaaaaaaa", Name: "debian"}
	h.image.Rootfs, h.image.Files = h.publish(filepath.Join(paths.ImagesDir(), "aaaaaaaaaaaa"), "rootfs.ext4", 3<<20)
	h.kernel = banger.Kernel{ID: "bbbbbbbbbbbb", Name: "cloud", Release: "6.1"}
	h.kernel.Image, h.kernel.Files = h.publish(filepath.Join(paths.KernelsDir(), "bbbbbbbbbbbb"), "vmlinux", 1000)
	h.cfg = doctor.Config{
		Paths: paths, Version: "v1", Agent: h.program("banger-agent", "echo banger-agent v1"), Default: vmm.Spec{VCPU: 1, MemMiB: 256},
		Cloner:   func() (disk.Choice, error) { return disk.Choice{Name: "copy", Why: "nothing else works"}, nil },
		Resolver: h.nameServer(3), Images: images{h}, Kernels: kernels{h}, VMs: &h.vms,
		Templates: func(context.Context, int64) (string, []preflight.Problem) { return "none", nil },
	}
	return h
}

// program puts a program on PATH and returns its path.
func (h *clinic) program(name, script string) string {
	h.t.Helper()
	path := filepath.Join(h.bin, name)
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		h.t.Fatal(err)
	}
	return path
}

// publish makes a file with some data in it and records it.
func (h *clinic) publish(dir, name string, size int64) (string, []banger.File) {
	h.t.Helper()
	path := filepath.Join(dir, name)
	err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(path, []byte("data"), 0o600), os.Truncate(path, size))
	if err != nil {
		h.t.Fatal(err)
	}
	files, err := preflight.Record(h.t.Context(), dir, dir)
	if err != nil {
		h.t.Fatal(err)
	}
	return path, files
}

// nameServer answers every query with a response code (RFC 1035, 4.1.1) and no records.
func (h *clinic) nameServer(code byte) *net.Resolver {
	h.t.Helper()
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { server.Close() })
	go func() {
		b := make([]byte, 512)
		for {
			n, from, err := server.ReadFrom(b)
			if err != nil {
				return
			}
			b[2], b[3], b[10], b[11] = b[2]|0x80, 0x80|code, 0, 0
			server.WriteTo(b[:n], from) //nolint:errcheck // the asker waits in vain, and says so
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, server.LocalAddr().String())
	}}
}

// findings runs doctor and returns a line for each finding that is not ok.
func (h *clinic) findings(full bool) []string {
	h.t.Helper()
	ctx := h.t.Context()
	if h.cfg.Driver == nil {
		h.cfg.Driver = qemu.New(ctx, qemu.Config{KVM: func(context.Context) error { return h.kvm }})
	}
	if h.cfg.Store == nil {
		s, err := store.Open(ctx, h.cfg.Paths.DB())
		if err != nil {
			h.t.Fatal(err)
		}
		defer s.Close()
		h.cfg.Store = s
	}
	var lines []string
	for _, f := range preflight.Report(ctx, doctor.New(h.cfg).Checks(full), false) {
		if f.Detail == "" || f.Status != preflight.OK && f.Fix == "" {
			h.t.Errorf("%+v lacks words", f)
		}
		if f.Status != preflight.OK {
			lines = append(lines, fmt.Sprintf("%s %s: %s → %s", f.Status, f.Name, f.Detail, f.Fix))
		}
	}
	return lines
}

type images struct{ h *clinic }

func (i images) List(context.Context) ([]banger.Image, error) { return []banger.Image{i.h.image}, nil }

type kernels struct{ h *clinic }

func (k kernels) List(context.Context) ([]banger.Kernel, error) {
	return []banger.Kernel{k.h.kernel}, nil
}

// vms are some VMs of which one may have a guest.
type vms struct {
	list  []banger.VM
	guest *guest.Conn
}

func (v *vms) List(context.Context) ([]banger.VM, error) { return v.list, nil }

func (v *vms) Guest(context.Context, string) (banger.VM, *guest.Conn, error) {
	if v.guest == nil {
		return banger.VM{}, nil, errkind.New(api.KindUnavailable, "it does not answer")
	}
	return banger.VM{}, v.guest, nil
}

// run adds a running VM whose agent answers with handlers.
func (h *clinic) run(handlers map[string]call.Handler) {
	h.t.Helper()
	conn, err := guesttest.Serve(h.t, handlers)(h.t.Context())
	if err == nil {
		h.vms.guest, err = guest.Connect(h.t.Context(), conn)
	}
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { h.vms.guest.Close() })
	h.vms.list = append(h.vms.list, banger.VM{Name: "web", State: banger.Running, Spec: banger.Spec{NAT: true}})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestHealthyHost(t *testing.T) {
	h := newClinic(t)
	if lines := h.findings(true); len(lines) > 0 {
		t.Errorf("found\n%s", strings.Join(lines, "\n"))
	}
}

// TestDefects breaks one thing at a time. Each must be the only thing that is found.
func TestDefects(t *testing.T) {
	for _, c := range []struct {
		what   string
		defect func(t *testing.T, h *clinic)
		full   bool
		want   string // with * for what differs from run to run
	}{
		{what: "QEMU is missing", want: "fail vmm: QEMU is not installed*qemu-system-x86_64*install QEMU*",
			defect: func(t *testing.T, h *clinic) { must(t, os.Remove(filepath.Join(h.bin, "qemu-system-x86_64"))) }},
		{what: "QEMU is too old", want: "fail vmm: QEMU *4.2*old* → install QEMU 7*",
			defect: func(_ *testing.T, h *clinic) { h.program("qemu-system-x86_64", "echo QEMU emulator version 4.2.1") }},
		{what: "VMs get less memory than a guest needs", want: "fail vmm: 16 MiB of memory is too little → *",
			defect: func(_ *testing.T, h *clinic) { h.cfg.Default.MemMiB = 16 }},
		{what: "KVM is missing", want: "warn kvm: emulation, because there is no /dev/kvm → *load a module",
			defect: func(_ *testing.T, h *clinic) {
				h.kvm = errkind.WithHint(errors.New("there is no /dev/kvm"), "load a module")
			}},
		{what: "a program is missing", want: "warn programs: *: mmdebstrap → install *",
			defect: func(t *testing.T, h *clinic) { must(t, os.Remove(filepath.Join(h.bin, "mmdebstrap"))) }},
		{what: "the state is open to others", want: "fail directories: the directory */state has mode 0755* → restrict it: `chmod 700 */state`*",
			defect: func(t *testing.T, h *clinic) { must(t, os.Chmod(h.cfg.Paths.State, 0o755)) }},
		{what: "a directory is missing", want: "warn directories: the directory */patches is missing → make it*",
			defect: func(t *testing.T, h *clinic) { must(t, os.Remove(h.cfg.Paths.PatchesDir())) }},
		{
			what: "there is little room", want: "warn disk-space: only * MiB are free in */state → delete *",
			defect: func(_ *testing.T, h *clinic) { h.cfg.LowSpace = math.MaxInt64 },
		},
		{what: "the forced cloner cannot work", want: "fail cloner: disk cloner reflink* → set it to auto",
			defect: func(_ *testing.T, h *clinic) {
				h.cfg.Cloner = func() (disk.Choice, error) {
					return disk.Choice{}, errkind.WithHint(errors.New("disk cloner reflink: not supported"), "set it to auto")
				}
			}},
		{what: "the agent is missing", want: "fail agent: the guest agent */banger-agent cannot be executed* → install *",
			defect: func(t *testing.T, h *clinic) { must(t, os.Remove(h.cfg.Agent)) }},
		{what: "the agent is of another version", want: "warn agent: *banger-agent is of version v0, and the daemon of v1 → install *",
			defect: func(_ *testing.T, h *clinic) { h.program("banger-agent", "echo banger-agent v0") }},
		{what: "the host's name server refuses", want: "warn network: names cannot be looked up on the host: *server misbehaving → *resolv.conf*",
			defect: func(_ *testing.T, h *clinic) { h.cfg.Resolver = h.nameServer(2) }},
		{what: "a guest gets no answer", want: `warn network: names cannot be looked up in vm "web": i/o timeout → *`,
			defect: func(_ *testing.T, h *clinic) {
				h.run(map[string]call.Handler{guestapi.MethodResolve: func(context.Context, *call.Call) (any, error) {
					return nil, errkind.New(api.KindUnavailable, "i/o timeout")
				}})
			}},
		{what: "a kernel is truncated", want: `fail kernel: kernel "cloud": the file */vmlinux has 10 bytes and had 1000 → restore*`,
			defect: func(t *testing.T, h *clinic) { must(t, os.Truncate(h.kernel.Image, 10)) }},
		{what: "a small file has changed", want: `fail kernel: kernel "cloud": the content of */vmlinux has changed → restore*`,
			defect: func(t *testing.T, h *clinic) { must(t, overwrite(h.kernel.Image)) }},
		{what: "an image's file is missing", want: `fail image: image "debian": the file */rootfs.ext4 is gone → restore*`,
			defect: func(t *testing.T, h *clinic) { must(t, os.Remove(h.image.Rootfs)) }},
		{what: "a large file has changed", full: true, want: `fail image: image "debian": the content of */rootfs.ext4 has changed → restore*`,
			defect: func(t *testing.T, h *clinic) { must(t, overwrite(h.image.Rootfs)) }},
		{what: "a template has changed", full: true, want: "warn templates: a file of more than 1048576 bytes → remove it",
			defect: func(_ *testing.T, h *clinic) {
				h.cfg.Templates = func(_ context.Context, limit int64) (string, []preflight.Problem) {
					if limit <= 1<<20 {
						return "2", nil
					}
					return "2", []preflight.Problem{{Detail: "a file of more than 1048576 bytes", Fix: "remove it", Minor: true}}
				}
			}},
		{what: "the database is damaged", want: "fail store: database *banger.db: * → stop the daemon*",
			defect: damageDatabase},
		{what: "something is left over", want: "warn leftovers: a directory → remove it",
			defect: func(_ *testing.T, h *clinic) {
				h.cfg.Leftovers = append(h.cfg.Leftovers, func(context.Context) ([]preflight.Problem, error) {
					return []preflight.Problem{{Detail: "a directory", Fix: "remove it", Minor: true}}, nil
				})
			}},
		{what: "a control group is left over", want: "warn leftovers: the control group */0123456789ab is empty, and no VM with its id runs → remove it*",
			defect: func(t *testing.T, h *clinic) {
				h.cfg.Group = groups(t, map[string]string{"0123456789ab": "populated 0\n", "aaaaaaaaaaaa": "populated 1\n", "bbbbbbbbbbbb": "populated 0\n"})
				h.vms.list = append(h.vms.list, banger.VM{ID: "bbbbbbbbbbbb", Name: "web", State: banger.Starting})
			}},
		{what: "leftovers cannot be looked for", want: "fail leftovers: look for leftovers: no room → *",
			defect: func(_ *testing.T, h *clinic) {
				h.cfg.Leftovers = append(h.cfg.Leftovers, func(context.Context) ([]preflight.Problem, error) {
					return nil, errors.New("no room")
				})
			}},
		{what: "a VM has failed", want: `warn vms: vm "web" has failed: killed → see *vm logs web*`,
			defect: func(_ *testing.T, h *clinic) {
				h.vms.list = append(h.vms.list, banger.VM{Name: "web", State: banger.Failed, LastError: "killed"})
			}},
		{what: "a VM runs with a condition", want: `warn vms: vm "web" runs, but: agent: no answer → see *vm logs web*`,
			defect: func(_ *testing.T, h *clinic) {
				h.vms.list = append(h.vms.list, banger.VM{Name: "web", State: banger.Running,
					Conditions: []banger.Condition{{Type: "agent", Message: "no answer"}}})
			}},
	} {
		t.Run(c.what, func(t *testing.T) {
			h := newClinic(t)
			c.defect(t, h)
			lines := h.findings(c.full)
			if len(lines) != 1 || !like(c.want, lines[0]) {
				t.Errorf("got\n%s\nwant one line like\n%s", strings.Join(lines, "\n"), c.want)
			}
		})
	}
}

func TestLimitsAreTold(t *testing.T) {
	for _, c := range []struct {
		what, controllers, want string
		none                    bool
	}{
		{what: "there are no groups", none: true, want: "no control groups *nothing limits VMs"},
		{what: "the groups have every controller", controllers: "cpuset cpu io memory pids", want: "control groups that limit VMs to their sizes"},
		{what: "the groups lack some", controllers: "cpu pids", want: "control groups that do not limit VMs' io, memory"},
	} {
		t.Run(c.what, func(t *testing.T) {
			h := newClinic(t)
			if !c.none {
				h.cfg.Group = groups(t, nil)
				must(t, os.WriteFile(filepath.Join(string(h.cfg.Group), "cgroup.controllers"), []byte(c.controllers), 0o600))
			}
			detail, found := doctor.New(h.cfg).Checks(false)[0].Ask(t.Context())
			if len(found) > 0 || !like("Linux * as *; "+c.want, detail) {
				t.Errorf("got %q, %v", detail, found)
			}
		})
	}
}

// groups makes directories that look like control groups, with their events (Documentation/admin-guide/cgroup-v2.rst).
func groups(t *testing.T, events map[string]string) host.Cgroup {
	t.Helper()
	dir := t.TempDir()
	for name, text := range events {
		must(t, os.Mkdir(filepath.Join(dir, name), 0o700))
		must(t, os.WriteFile(filepath.Join(dir, name, "cgroup.events"), []byte(text), 0o600))
	}
	return host.Cgroup(dir)
}

// like reports whether text is pattern with something in place of each *.
func like(pattern, text string) bool {
	parts := strings.Split(pattern, "*")
	rest, ok := strings.CutPrefix(text, parts[0])
	for _, p := range parts[1:] {
		var found bool
		if _, rest, found = strings.Cut(rest, p); !found {
			return false
		}
	}
	return ok && (rest == "" || strings.HasSuffix(pattern, "*"))
}

// overwrite changes the beginning of a file, and not its size.
func overwrite(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString("DATA")
	return errors.Join(err, f.Close())
}

// damageDatabase makes a database with records and overwrites some of its pages.
func damageDatabase(t *testing.T, h *clinic) {
	path := h.cfg.Paths.DB()
	s, err := store.Open(t.Context(), path)
	must(t, err)
	for i := range 300 {
		must(t, s.CreateVM(t.Context(), banger.VM{ID: banger.VMID(fmt.Sprintf("%012x", i)), Name: fmt.Sprintf("vm-%d", i), State: banger.Created}))
	}
	must(t, s.Close())
	b, err := os.ReadFile(path)
	must(t, err)
	copy(b[len(b)/2:], bytes.Repeat([]byte{0xff}, 8192))
	must(t, os.WriteFile(path, b, 0o600))
}

// TestNothingNormal has doctor look at what is normal while the daemon is healthy.
func TestNothingNormal(t *testing.T) {
	quiet := func(t *testing.T, h *clinic) {
		t.Helper()
		if lines := h.findings(false); len(lines) > 0 {
			t.Errorf("found\n%s", strings.Join(lines, "\n"))
		}
	}
	t.Run("no image, no kernel, VMs in every state", func(t *testing.T) {
		h := newClinic(t)
		h.cfg.Images, h.cfg.Kernels = none{}, noKernels{}
		for s := banger.Created; s < banger.Failed; s++ {
			h.vms.list = append(h.vms.list, banger.VM{Name: s.String(), State: s, LastError: "of an earlier start"})
		}
		quiet(t, h)
	})
	t.Run("large files are not read unless that is asked for", func(t *testing.T) {
		h := newClinic(t)
		must(t, overwrite(h.image.Rootfs))
		quiet(t, h)
	})
	t.Run("a guest whose agent is older than the question, and the host is asked", func(t *testing.T) {
		h := newClinic(t)
		h.run(nil)
		quiet(t, h)
	})
	t.Run("a guest that resolves, on a host whose own look-ups fail", func(t *testing.T) {
		h := newClinic(t)
		h.cfg.Resolver = h.nameServer(2)
		h.run(map[string]call.Handler{guestapi.MethodResolve: func(context.Context, *call.Call) (any, error) { return nil, nil }})
		quiet(t, h)
	})
}

type none struct{}

func (none) List(context.Context) ([]banger.Image, error) { return nil, nil }

type noKernels struct{}

func (noKernels) List(context.Context) ([]banger.Kernel, error) { return nil, nil }
