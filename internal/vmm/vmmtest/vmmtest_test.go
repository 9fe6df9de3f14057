package vmmtest_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/host"
	"github.com/banger-vm/banger/internal/preflight"
	"github.com/banger-vm/banger/internal/vmm"
	"github.com/banger-vm/banger/internal/vmm/fake"
	"github.com/banger-vm/banger/internal/vmm/vmmtest"
)

// wrong is a driver with one defect: the functions that are set replace those of the fake.
type wrong struct {
	vmm.Driver
	start func(ctx context.Context, d vmm.Driver, s vmm.Spec) (vmm.Machine, error)
	adopt func(ctx context.Context, d vmm.Driver, h vmm.Handle) (vmm.Machine, error)
	check func(p []preflight.Problem) []preflight.Problem
	wrap  func(m vmm.Machine) vmm.Machine
}

func (w wrong) Check(ctx context.Context, s vmm.Spec) []preflight.Problem {
	if w.check == nil {
		return w.Driver.Check(ctx, s)
	}
	return w.check(w.Driver.Check(ctx, s))
}

func (w wrong) Start(ctx context.Context, s vmm.Spec) (vmm.Machine, error) {
	if w.start != nil {
		return w.start(ctx, w.Driver, s)
	}
	return w.machine(w.Driver.Start(ctx, s))
}

func (w wrong) Adopt(ctx context.Context, h vmm.Handle) (vmm.Machine, error) {
	if w.adopt != nil {
		return w.adopt(ctx, w.Driver, h)
	}
	return w.machine(w.Driver.Adopt(ctx, h))
}

func (w wrong) machine(m vmm.Machine, err error) (vmm.Machine, error) {
	if err == nil && w.wrap != nil {
		m = w.wrap(m)
	}
	return m, err
}

// wrongMachine is a machine with one defect.
type wrongMachine struct {
	vmm.Machine
	dial func(ctx context.Context) (net.Conn, error)
	kill func(ctx context.Context) error
	exit func() vmm.Exit
}

func (m wrongMachine) DialAgent(ctx context.Context) (net.Conn, error) {
	if m.dial == nil {
		return m.Machine.DialAgent(ctx)
	}
	return m.dial(ctx)
}

func (m wrongMachine) Kill(ctx context.Context) error {
	if m.kill == nil {
		return m.Machine.Kill(ctx)
	}
	return m.kill(ctx)
}

func (m wrongMachine) Exit() vmm.Exit {
	if m.exit == nil {
		return m.Machine.Exit()
	}
	return m.exit()
}

const litter = "left.sock"

// defects are drivers that are wrong in one way, with the sentence that must catch each.
var defects = map[string]struct {
	caught string
	wrong
}{
	"reports one problem at a time": {"all problems of a spec are reported at once, each with a fix", wrong{
		check: func(p []preflight.Problem) []preflight.Problem { return p[:1] },
	}},
	"leaves a socket when a start fails": {"a start that fails leaves nothing", wrong{
		start: func(ctx context.Context, d vmm.Driver, s vmm.Spec) (vmm.Machine, error) {
			m, err := d.Start(ctx, s)
			if err != nil {
				err = errors.Join(err, os.WriteFile(filepath.Join(s.RunDir, litter), nil, 0o600))
			}
			return m, err
		},
	}},
	"ends a machine with the context of its start": {"a machine starts, answers, and outlives the context of its start", wrong{
		start: func(ctx context.Context, d vmm.Driver, s vmm.Spec) (vmm.Machine, error) {
			m, err := d.Start(ctx, s)
			return wrongMachine{Machine: m, dial: func(dialing context.Context) (net.Conn, error) {
				if ctx.Err() != nil {
					return nil, errors.Join(ctx.Err(), m.Kill(dialing))
				}
				return m.DialAgent(dialing)
			}}, err
		},
	}},
	"ignores the context of a start": {"a start whose context ends, at any moment, leaves nothing", wrong{
		start: func(ctx context.Context, d vmm.Driver, s vmm.Spec) (vmm.Machine, error) {
			return d.Start(context.WithoutCancel(ctx), s)
		},
	}},
	"keeps the old connection": {"a new connection to the control channel ends the old one", wrong{
		wrap: func(m vmm.Machine) vmm.Machine {
			return wrongMachine{Machine: m, dial: func(ctx context.Context) (net.Conn, error) {
				ours, theirs := net.Pipe() // never closed: the suite's patience must not end it either
				go new(vmmtest.Guest).Serve(context.WithoutCancel(ctx), theirs, func(string) {}, func(string) {})
				return ours, nil
			}}
		},
	}},
	"believes a pid": {"a pid that is alive with another start time is not believed, nor harmed", wrong{
		adopt: func(ctx context.Context, d vmm.Driver, h vmm.Handle) (vmm.Machine, error) {
			h.StartTime = uint64(h.PID) << 8
			return d.Adopt(ctx, h)
		},
	}},
	"leaves the sockets of a dead machine": {"adopting a machine that is gone is not-found and removes its sockets", wrong{
		adopt: func(ctx context.Context, d vmm.Driver, h vmm.Handle) (vmm.Machine, error) {
			h.RunDir = filepath.Join(h.RunDir, "elsewhere")
			return d.Adopt(ctx, h)
		},
	}},
	"adopts foreign machines": {"a handle of another driver is invalid, and nothing is touched", wrong{
		adopt: func(ctx context.Context, d vmm.Driver, h vmm.Handle) (vmm.Machine, error) {
			h.Driver = d.Name()
			return d.Adopt(ctx, h)
		},
	}},
	"returns from a kill before the end": {"a kill ends the machine and leaves nothing", wrong{
		wrap: func(m vmm.Machine) vmm.Machine {
			first := true
			return wrongMachine{Machine: m, kill: func(ctx context.Context) error {
				if first {
					first = false
					return nil
				}
				return m.Kill(ctx)
			}}
		},
	}},
	"fails a second kill": {"a kill may be repeated, and a late one keeps the first reason", wrong{
		wrap: func(m vmm.Machine) vmm.Machine {
			return wrongMachine{Machine: m, kill: func(ctx context.Context) error {
				select {
				case <-m.Exited():
					return errors.New("no such process")
				default:
					return m.Kill(ctx)
				}
			}}
		},
	}},
	"calls every end clean": {"a guest kernel that panics ends its machine, and not cleanly", wrong{
		wrap: func(m vmm.Machine) vmm.Machine {
			return wrongMachine{Machine: m, exit: func() vmm.Exit {
				e := m.Exit()
				e.Clean = true
				return e
			}}
		},
	}},
	"knows no time of an end": {"a process that is killed from outside is noticed, and nothing is left", wrong{
		wrap: func(m vmm.Machine) vmm.Machine {
			return wrongMachine{Machine: m, exit: func() vmm.Exit { return vmm.Exit{Reason: m.Exit().Reason} }}
		},
	}},
}

// defectEnv names the defect that TestDefect has, in a process of its own: a suite that must fail cannot run in this one.
const defectEnv = "BANGER_TEST_DEFECT"

func TestSuiteCatchesDefects(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name, defect := range defects {
		t.Run(name, func(t *testing.T) {
			sentence := strings.ReplaceAll(defect.caught, " ", "_")
			out, err := host.Output(t.Context(), host.Command{
				Argv: []string{self, "-test.run=^TestDefect$/^" + regexp.QuoteMeta(sentence) + "$", "-test.timeout=20s"},
				Env:  []string{defectEnv + "=" + name},
			})
			if err == nil || !strings.Contains(string(out), "--- FAIL: TestDefect/"+sentence) {
				t.Errorf("%q did not catch it: %v\n%s", defect.caught, err, out)
			}
		})
	}
}

func TestDefect(t *testing.T) {
	defect, ok := defects[os.Getenv(defectEnv)]
	if !ok && os.Getenv(defectEnv) != "" {
		t.Skip("no such defect")
	}
	var guests vmmtest.Guests
	var computer *fake.Host
	computer = fake.NewHost(fake.Config{Agent: func(ctx context.Context, s vmm.Spec, conn net.Conn) {
		guests.Of(s).Serve(ctx, conn, func(text string) { computer.Print(s.ID, text) }, func(how string) {
			map[string]func(banger.VMID){"power-off": computer.PowerOff, "reboot": computer.Reboot, "panic": computer.Panic}[how](s.ID)
		})
	}})
	vmmtest.Run(t, vmmtest.Harness{
		Patience: time.Second,
		New: func(*testing.T) vmm.Driver {
			w := defect.wrong
			w.Driver = computer.Driver()
			return w
		},
		Spec:  spec,
		Crash: func(_ *testing.T, h vmm.Handle) { computer.Crash(h.ID) },
		Left: func(_ *testing.T, h vmm.Handle) []string {
			if computer.Lives(h) {
				return []string{"process"}
			}
			return nil
		},
	})
}

func spec(t *testing.T) vmm.Spec {
	dir := t.TempDir()
	s := vmm.Spec{
		ID: banger.NewID[banger.VMID](), Name: "web", Dir: dir, RunDir: t.TempDir(), VCPU: 1, MemMiB: 256,
		Kernel: filepath.Join(dir, "vmlinux"), Initrd: filepath.Join(dir, "initrd"),
	}
	for _, path := range []string{s.Kernel, s.Initrd} {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return s
}
