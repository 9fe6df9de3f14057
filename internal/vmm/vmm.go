// Package vmm is the contract between banger and the programs that run VMs.
//
// A [Driver] starts machines; a [Machine] is one running VMM process. The contract in full:
//
//   - Start either returns a machine or leaves nothing: no process, socket, cgroup or temporary file; only the logs in
//     Spec.Dir stay, for the reader of the error. ctx bounds the start only: a machine outlives the call, the client and
//     the daemon (own session, own cgroup, no inherited descriptors). A RunDir whose machine is alive is of kind busy.
//   - A machine is known durably by its [Handle]. The caller stores it; Adopt proves it against the kernel (pid and start
//     time) and attaches to the live process. Adopt of a handle whose process is provably gone returns an error of kind
//     not-found after it removed the process's sockets; any other failure leaves everything as it is. A handle of another
//     driver is of kind invalid.
//   - Exited is closed once the process is gone and was reaped or proven dead. Exit is valid from then on.
//   - Kill is idempotent, returns when the process is gone, and removes the machine's sockets and cgroup. When its ctx ends
//     first, it returns ctx's error and the kill goes on. A machine that dies by itself is cleaned in the same way before
//     Exited closes.
//   - DialAgent of a machine that has ended is of kind unavailable. Where a connection needs a guest that listens, it waits for one
//     until ctx ends; what is the host's fault it returns at once.
//   - The guest's console is written to [ConsoleLog] in Spec.Dir while a daemon follows the machine. The logs are bounded:
//     a guest that prints for ever does not fill the disk.
//   - All methods are safe for concurrent use.
//
// What a driver can do beyond that it says in [Features] and offers by optional interfaces. The conformance suite is
// package vmmtest; every driver passes it, the fake too.
package vmm

import (
	"context"
	"net"
	"time"

	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/preflight"
)

// The logs of a machine, in Spec.Dir. A full one is renamed to have [RotatedSuffix], over an older one.
const (
	ConsoleLog    = "console.log" // what the guest printed on its serial console
	VMMLog        = "vmm.log"     // what the VMM printed, for the present or last start
	RotatedSuffix = ".1"
)

// Accelerators, as in [Features] and [BootFacts].
const (
	AccelKVM = "kvm"
	AccelTCG = "tcg"
)

// Driver starts and adopts machines of one VMM.
type Driver interface {
	Name() string
	Features() Features
	// Check reports everything that keeps the driver from starting spec on this host, all at once. It is asked before the files
	// of the VM are made: a path that is empty is not looked at.
	Check(ctx context.Context, spec Spec) []preflight.Problem
	Start(ctx context.Context, spec Spec) (Machine, error)
	Adopt(ctx context.Context, h Handle) (Machine, error)
}

// Machine is one running VMM process.
type Machine interface {
	Handle() Handle
	// DialAgent connects to the host's end of the control channel. One connection at a time: a new one ends the old one.
	DialAgent(ctx context.Context) (net.Conn, error)
	Exited() <-chan struct{}
	Exit() Exit
	Kill(ctx context.Context) error
}

// Features are facts about a driver on this host.
type Features struct {
	Accel     string   // AccelKVM or AccelTCG
	AccelWhy  string   // for people: why that one
	AccelHint string   // for people: what to do about it; empty: nothing is amiss
	Engine    string   // for people: name, version, accelerator, such as "qemu 7.2.22 (tcg)"
	Formats   []string // disk formats it opens: raw, qcow2
	UserNet   bool     // has a user-mode network stack
	PCI       bool     // virtio devices are on PCI; else memory-mapped
	Tap       bool
	Pause     bool // its machines are Pausers
	Snapshot  bool // its machines are Savers, and Spec.Restore works
	MinMemMiB int  // smallest guest memory that boots
	// Unfit is what keeps any machine from starting on this host; Check reports it too.
	Unfit []preflight.Problem
}

// Spec is everything a driver needs to start a machine. Paths are absolute.
type Spec struct {
	ID     banger.VMID
	Name   string
	Dir    string // the VM's directory: console.log and vmm.log are written here
	RunDir string // the VM's directory for sockets; exists, private
	VCPU   int
	MemMiB int
	Kernel string // ELF vmlinux, or bzImage
	Initrd string
	Args   string // more kernel command line, after the driver's own
	Disks  []Disk // in order: vda, vdb, …
	NIC    *NIC
	// Memory is a file to be made that the guest's memory lives in, for a machine that will be saved; empty: it is anonymous.
	Memory string
	// Restore is what the machine goes on from in place of a boot: Kernel, Initrd and Args are not looked at. VCPU, MemMiB and
	// the kinds and order of Disks and NIC must be as when it was saved; disks may have grown, which the guest is told.
	Restore *Saved
}

// Saved is a machine on disk. Neither file may change while a machine lives that was restored from it: its memory is a private
// mapping of the file, of which it shares what it does not write.
type Saved struct {
	Memory string // Spec.Memory of the machine that was saved
	State  string // its processors and devices
}

// Disk is one virtio block device.
type Disk struct {
	Path     string
	Format   string // raw or qcow2
	ReadOnly bool
}

// NIC is the VM's network interface.
type NIC struct {
	MAC string
	Tap string // tap device; empty: the VMM's user-mode stack
	// User-mode stack only.
	Restrict bool // no traffic leaves the stack
}

// Handle is what is needed to find a machine again, stored as JSON. Pid and StartTime together prove identity: a pid alone is reused.
type Handle struct {
	Driver    string            `json:"driver"`
	ID        banger.VMID       `json:"id"`
	PID       int               `json:"pid"`
	StartTime uint64            `json:"start_time"` // field 22 of /proc/PID/stat, in clock ticks since boot (proc_pid_stat(5))
	Dir       string            `json:"dir"`
	RunDir    string            `json:"run_dir"`
	Engine    string            `json:"engine"`
	Extra     map[string]string `json:"extra,omitempty"` // the driver's own: socket paths, cgroup
}

// Exit says how a machine ended.
type Exit struct {
	At     time.Time
	Reason string // for people: "guest powered off", "killed", "qemu ended with exit status 1: …"
	// Clean says that the guest powered off. A reboot, which machines do not do, is not clean: a kernel that lost its way
	// resets in the same manner.
	Clean bool
}
