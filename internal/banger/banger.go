// Package banger holds the domain's words: VMs, images, kernels, workspaces, their ids, states and names. It does no I/O
// and imports nothing of ours but error kinds.
package banger

import (
	"crypto/rand"
	"encoding/hex"
	"net/netip"
	"slices"
	"time"

	"github.com/banger-vm/banger/api/guestapi"
)

// VMID identifies a VM for its whole life: 12 lower-case hex digits.
type VMID string

// ImageID identifies an image: 12 lower-case hex digits.
type ImageID string

// KernelID identifies a kernel: 12 lower-case hex digits.
type KernelID string

// OperationID identifies an operation: 12 lower-case hex digits.
type OperationID string

// NewID returns a fresh random id.
func NewID[T ~string]() T {
	var b [6]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return T(hex.EncodeToString(b[:]))
}

// VM is one microVM: identity, intent, and what last became of it.
type VM struct {
	ID    VMID   `json:"id"`
	Name  string `json:"name"`
	State State  `json:"state"`
	// Pending is set while the operation that creates the VM has not ended. A daemon that starts removes pending VMs.
	Pending    bool        `json:"pending,omitempty"`
	Spec       Spec        `json:"spec"`
	LastError  string      `json:"last_error,omitempty"`
	Conditions []Condition `json:"conditions,omitempty"`
	Workspace  *Workspace  `json:"workspace,omitempty"`
	Created    time.Time   `json:"created"`
	Started    time.Time   `json:"started,omitzero"`
	Stopped    time.Time   `json:"stopped,omitzero"`
	LastUsed   time.Time   `json:"last_used,omitzero"`
	Start      Start       `json:"start,omitzero"` // how it was started last
	// Network is the bridge's network that the VM has an address in since its creation or last start; the zero value: it is in none. Whoever stores a VM with a
	// network gives it an Address in it, in the same transaction.
	Network netip.Prefix `json:"network,omitzero"`
	Address netip.Addr   `json:"address,omitzero"`
}

// Start is how a VM was started: warm, from a template, or cold, by a boot, and why.
type Start struct {
	Warm bool   `json:"warm,omitempty"`
	Why  string `json:"why,omitempty"` // of a cold one, for people
}

// Spec is what a VM is to be. It is complete: defaults and references were resolved when the VM was created.
type Spec struct {
	ImageID  ImageID           `json:"image_id"`
	Image    string            `json:"image"` // name at creation, for people
	KernelID KernelID          `json:"kernel_id"`
	Kernel   string            `json:"kernel"`
	VMM      string            `json:"vmm"` // auto or a driver's name
	Init     guestapi.InitMode `json:"init"`
	VCPU     int               `json:"vcpu"`
	MemMiB   int               `json:"mem_mib"`
	RootSize int64             `json:"root_size"` // bytes
	WorkSize int64             `json:"work_size"` // bytes
	NAT      bool              `json:"nat"`
	Group    string            `json:"group,omitempty"` // VMs of one group reach each other
	Publish  []Publish         `json:"publish,omitempty"`
	Env      []string          `json:"env,omitempty"`
	Cloner   string            `json:"cloner"` // the disk cloner that made the VM's disks
	// AutoStop is how long the VM may run unused before it is stopped. Nil: as configured; zero: for ever.
	AutoStop  *time.Duration `json:"auto_stop,omitempty"`
	Ephemeral bool           `json:"ephemeral,omitempty"`
	Cold      bool           `json:"cold,omitempty"` // it always boots: its first start is from no template
	HostKey   Secret         `json:"host_key"`       // OpenSSH PEM
	MachineID string         `json:"machine_id"`
	MAC       string         `json:"mac"`
}

// Condition is something wrong with a VM that runs all the same.
type Condition struct {
	Type    string    `json:"type"` // one word, such as network
	Message string    `json:"message"`
	Since   time.Time `json:"since"`
}

// Workspace is a git repository that was carried into a VM.
type Workspace struct {
	GuestPath    string    `json:"guest_path"`
	Source       string    `json:"source"`
	Branch       string    `json:"branch"`
	BaseCommit   string    `json:"base_commit"`
	BaseTree     string    `json:"base_tree"`
	Prepared     time.Time `json:"prepared"`
	ExportedTree string    `json:"exported_tree,omitempty"`
	Exported     time.Time `json:"exported,omitzero"`
	Changes      Changes   `json:"changes,omitempty"`
}

// Changes is what is known of a workspace whose VM does not run.
type Changes string

// What can be known. The empty value means that the guest must be asked.
const (
	ChangesClean   Changes = "clean"
	ChangesPresent Changes = "changed"
	ChangesUnknown Changes = "unknown"
)

// Image is a root filesystem that root disks are cloned from. Its files are in a directory that its id names.
type Image struct {
	ID       ImageID           `json:"id"`
	Name     string            `json:"name"`
	Managed  bool              `json:"managed"`
	Kernel   string            `json:"kernel"` // name of the kernel to boot with
	Init     guestapi.InitMode `json:"init"`
	Source   string            `json:"source"`
	Digest   string            `json:"digest"` // sha256:HEX of the root filesystem's tar
	RootSize int64             `json:"root_size"`
	WorkSize int64             `json:"work_size"` // 0: no work-seed
	Packages int               `json:"packages,omitempty"`
	Created  time.Time         `json:"created"`
	Rootfs   string            `json:"rootfs"`              // path of rootfs.ext4
	WorkSeed string            `json:"work_seed,omitempty"` // path of work-seed.ext4
	Run      *Run              `json:"run,omitempty"`       // what an OCI image says of its use; nil: nothing
	Files    []File            `json:"files,omitempty"`     // as they were when the image was published
}

// Run is how an OCI image is to be used (OCI Image Format Specification, config.md).
type Run struct {
	Command []string `json:"command,omitempty"` // entry point and arguments: what runs where no command is given
	Env     []string `json:"env,omitempty"`     // NAME=VALUE, for every command
	User    string   `json:"user,omitempty"`    // of Command: name or uid, optional :group
	Dir     string   `json:"dir,omitempty"`     // of Command
}

// File is a file that never changes, as it was when it was published.
type File struct {
	Path   string `json:"path"`
	Size   int64  `json:"size"`   // bytes
	Digest string `json:"digest"` // as package preflight makes it
}

// Kernel is a kernel image with its modules and the facts about its configuration.
type Kernel struct {
	ID      KernelID `json:"id"`
	Name    string   `json:"name"`
	Release string   `json:"release"`
	Arch    string   `json:"arch"`
	Source  string   `json:"source"`
	Format  string   `json:"format"` // elf or bzimage
	Image   string   `json:"image"`  // path
	Base    string   `json:"base"`   // path of a directory with the boot modules
	// BootModules are file names below Base, in load order, and PCIModules those to load after them where the VM's devices are
	// on PCI. LateModules are paths below lib/modules/RELEASE.
	BootModules []string          `json:"boot_modules"`
	PCIModules  []string          `json:"pci_modules,omitempty"`
	LateModules []string          `json:"late_modules,omitempty"`
	Modules     string            `json:"modules,omitempty"`      // path of the module tree's file system image
	ModulesType string            `json:"modules_type,omitempty"` // its type, such as ext4
	Facts       map[string]string `json:"facts,omitempty"`
	Files       []File            `json:"files,omitempty"` // as they were when the kernel was published
	Created     time.Time         `json:"created"`
}

// OnPCI is k for a VM whose devices are on PCI.
func (k Kernel) OnPCI() Kernel {
	k.BootModules, k.PCIModules = slices.Concat(k.BootModules, k.PCIModules), nil
	return k
}

// Secret is text that logs and prints as "[redacted]".
type Secret string

func (Secret) String() string { return "[redacted]" }

// GoString keeps %#v from showing the secret.
func (Secret) GoString() string { return "[redacted]" }
