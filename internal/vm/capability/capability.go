// Package capability is the chain through which a VM's start is built, unwound, re-attached and cleaned up.
//
// A [Capability] is one thing that a running VM has: its disks, its network interface, its keys, its machine, its agent.
// The [Chain] attaches them in order and detaches them in reverse. The rules that make every fault harmless:
//
//   - Attach may find leftovers of an earlier Attach of the same VM, and ends as if it had not.
//   - Detach undoes Attach, whether that succeeded, failed in the middle, or ran in an earlier daemon; it runs also when
//     Attach never ran. It needs nothing but the VM's record: every name derives from the VM's id.
//   - When Attach of one capability fails, the chain detaches that one and all before it, and reports the failure first.
//   - Each Attach and Detach is a named failpoint, is timed and logged.
//
// Before anything is attached, every [Checker] among them is asked what would keep it from attaching, so that a start which
// cannot succeed changes nothing, and says everything that is wrong at once.
//
// All calls for one VM but Inspect are made under that VM's lock.
package capability

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/failpoint"
	"github.com/banger-vm/banger/internal/guest"
	"github.com/banger-vm/banger/internal/host"
	"github.com/banger-vm/banger/internal/opstate"
	"github.com/banger-vm/banger/internal/preflight"
	"github.com/banger-vm/banger/internal/vmm"
)

// Run is one run of a VM, from start to stop. Capabilities read what they need and fill in what they add.
type Run struct {
	VM     banger.VM
	Image  banger.Image
	Kernel banger.Kernel
	Dir    string // the VM's durable directory
	RunDir string // the VM's directory for sockets
	Driver vmm.Driver
	Report opstate.Reporter

	Template *Template // what the run begins with; nil: a boot
	Making   bool      // the run makes a template: its guest is nobody's, and its memory a file

	Spec    vmm.Spec            // grows until the machine starts
	Boot    guestapi.BootConfig // grows until the initramfs is written
	Machine vmm.Machine         // set once there is one
	Link    *guest.Link         // likewise
	Hello   guestapi.Hello
	Halted  atomic.Pointer[banger.Condition] // why the guest is halted now; nil: it is not
}

// Template is a guest that is nobody's, booted and saved, which VMs begin with in place of a boot.
type Template struct {
	ID    string
	Saved vmm.Saved
	// Disks are its root and its work disk: clones by the cloner of the VM, in a format of that cloner's, to be cloned in turn.
	Disks [2]string
}

// Capability is one thing that is attached to a VM at start. See the package comment for the rules.
type Capability interface {
	Name() string // one word, stable: it names the failpoints NAME.attach and NAME.detach
	Attach(ctx context.Context, r *Run) error
	Detach(ctx context.Context, r *Run) error
}

// Checker is a capability that can tell beforehand what would keep it from attaching. The checks look at r as a start begins
// with it, and change nothing.
type Checker interface {
	Checks(r *Run) []preflight.Check
}

// Reattacher is a capability that has something to do for a machine which outlived the daemon. A failure becomes a
// condition of the VM; the machine goes on.
type Reattacher interface {
	Reattach(ctx context.Context, r *Run) error
}

// Destroyer is a capability that keeps something of a VM while it is stopped, and removes it when the VM is deleted.
// Destroy is idempotent and runs on detached VMs only.
type Destroyer interface {
	Destroy(ctx context.Context, r *Run) error
}

// Usage is what a VM's capabilities take of the host, in bytes.
type Usage struct {
	Root, Work int64 // allocated by the root and the work disk
}

// Measurer is a capability that takes something of the host which can be measured, whether the VM runs or not.
type Measurer interface {
	Measure(r *Run, u *Usage) error
}

// Chain is the capabilities in the order of their start.
type Chain struct {
	caps   []Capability
	points failpoint.Set
	log    *slog.Logger
}

// NewChain returns a chain of caps.
func NewChain(caps []Capability, points failpoint.Set, log *slog.Logger) *Chain {
	return &Chain{caps: caps, points: points, log: log}
}

// Steps returns the names of the chain's failpoints in order, for fault tests.
func (c *Chain) Steps() []string {
	var names []string
	for _, p := range c.caps {
		names = append(names, p.Name()+".attach")
	}
	return names
}

// Check asks every capability what would keep it from attaching. The error, of kind unavailable, has all of it.
func (c *Chain) Check(ctx context.Context, r *Run) error {
	var all []preflight.Check
	for _, p := range c.caps {
		if q, ok := p.(Checker); ok {
			all = append(all, q.Checks(r)...)
		}
	}
	return preflight.Refusal(ctx, all)
}

// undoTimeout bounds an undo, which runs although the request that failed may have ended.
const undoTimeout = 30 * time.Second

// Attach attaches every capability. After an error all are detached.
func (c *Chain) Attach(ctx context.Context, r *Run) error {
	for i, p := range c.caps {
		err := c.step(ctx, r, p.Name()+".attach", p.Attach)
		if err == nil {
			continue
		}
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
		defer cancel()
		return errors.Join(fmt.Errorf("%s: %w", p.Name(), err), c.detach(undo, r, i))
	}
	return nil
}

// Detach detaches every capability in reverse, going on after failures.
func (c *Chain) Detach(ctx context.Context, r *Run) error { return c.detach(ctx, r, len(c.caps)-1) }

func (c *Chain) detach(ctx context.Context, r *Run, last int) error {
	var errs []error
	for i := last; i >= 0; i-- {
		p := c.caps[i]
		if err := c.step(ctx, r, p.Name()+".detach", p.Detach); err != nil {
			errs = append(errs, fmt.Errorf("detach %s: %w", p.Name(), err))
		}
	}
	return errors.Join(errs...)
}

// Reattach tells every capability about a machine that was adopted. It returns a condition for each that failed.
func (c *Chain) Reattach(ctx context.Context, r *Run) []banger.Condition {
	var conds []banger.Condition
	for _, p := range c.caps {
		q, ok := p.(Reattacher)
		if !ok {
			continue
		}
		if err := c.step(ctx, r, p.Name()+".reattach", q.Reattach); err != nil {
			conds = append(conds, banger.Condition{Type: p.Name(), Message: err.Error(), Since: time.Now()})
		}
	}
	return conds
}

// Destroy removes what the capabilities keep of a stopped VM, in reverse order.
func (c *Chain) Destroy(ctx context.Context, r *Run) error {
	var errs []error
	for i := len(c.caps) - 1; i >= 0; i-- {
		q, ok := c.caps[i].(Destroyer)
		if !ok {
			continue
		}
		if err := c.step(ctx, r, c.caps[i].Name()+".destroy", q.Destroy); err != nil {
			errs = append(errs, fmt.Errorf("destroy %s: %w", c.caps[i].Name(), err))
		}
	}
	return errors.Join(errs...)
}

// disposeTimeout bounds how long it may take to end a run and remove what it has.
const disposeTimeout = 30 * time.Second

// Dispose ends a run that is no VM's and removes its directory, although the request may have ended. When the machine does not end the
// directory stays, for its handle is in it.
func (c *Chain) Dispose(ctx context.Context, r *Run) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), disposeTimeout)
	defer cancel()
	if err := c.Detach(ctx, r); err != nil {
		return err
	}
	return errors.Join(c.Destroy(ctx, r), host.RemoveDir(r.Dir))
}

// Measure adds up what the capabilities of a VM take. What cannot be measured counts nothing and is in the error.
func (c *Chain) Measure(r *Run) (Usage, error) {
	var u Usage
	var errs []error
	for _, p := range c.caps {
		if q, ok := p.(Measurer); ok {
			errs = append(errs, q.Measure(r, &u))
		}
	}
	return u, errors.Join(errs...)
}

func (c *Chain) step(ctx context.Context, r *Run, name string, fn func(context.Context, *Run) error) error {
	begun := time.Now()
	err := c.hit(ctx, r, name)
	if err == nil {
		err = fn(ctx, r)
	}
	if err == nil {
		err = c.hit(ctx, r, name+".done")
	}
	c.log.Debug("step", "vm", r.VM.Name, "step", name, "took", time.Since(begun), "err", err)
	return err
}

// hit passes a failpoint. One that is set says so first, so that a test knows where the start stands, and nobody takes it for
// a fault.
func (c *Chain) hit(ctx context.Context, r *Run, point string) error {
	if _, set := c.points[point]; set {
		c.log.Warn("failpoint", "vm", r.VM.Name, "step", point)
	}
	return c.points.Hit(ctx, point)
}
