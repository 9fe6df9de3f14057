// Package guestapi is the contract between host and guest: what the daemon hands to the agent at boot ([BootConfig], the
// file vm.json of the per-VM initramfs archive), and the calls the agent answers on the control channel.
//
// # Control channel
//
// One byte stream that needs no network: a virtio-serial port named [PortName], or vsock on [VsockPort]. The host opens it with a
// handshake (package internal/guest), then both sides run yamux on it, the host as yamux's client. The host opens a yamux
// stream for each call: a JSON-RPC 2.0 request line, the agent's response line, and for the stream methods frames or raw
// bytes after it, as in package api. Either side may serve many streams at once.
package guestapi

import (
	"time"

	"github.com/banger-vm/banger/api/frame"
)

// PortName is the name of the virtio-serial port of the control channel, as in /sys/class/virtio-ports/*/name.
const PortName = "dev.banger.agent"

// VsockPort is where the agent listens on vsock. It is below 1024, so that only root of the guest could take it before the agent.
const VsockPort = 1000

// PowerOffRestart is the command with which the agent restarts a machine that cannot power off (LINUX_REBOOT_CMD_RESTART2 of
// reboot(2)). The kernel prints it on the console, which tells such a power-off from a reboot.
const PowerOffRestart = "power-off"

// SSHPort is the port of the agent's SSH server inside the guest, where nothing else has it.
const SSHPort = 22

// The agent's methods. Those marked with a stream kind carry bytes after the response line.
const (
	MethodHello    = "agent.hello"      // Await → Hello: identity and readiness; answered as soon as the root is mounted and what Await names is decided
	MethodBecome   = "agent.become"     // Become → Hello: makes a template's guest a VM; answered when it is one
	MethodConfig   = "agent.configure"  // Identity → none: replace keys, time and environment of a running guest
	MethodStats    = "agent.stats"      // → Stats
	MethodPorts    = "agent.ports"      // → Ports
	MethodResolve  = "agent.resolve"    // → none: asks the guest's name servers; kind unavailable: none answers
	MethodSync     = "agent.sync"       // → none: sync(2) every file system
	MethodPowerOff = "agent.power-off"  // → none: end processes, sync, answer, power off
	MethodExec     = "exec"             // ExecSpec → ExecStarted, then frames
	MethodTarIn    = "tar.in"           // TarIn → none, then frames: stdin carries a tar, exit ends it
	MethodTarOut   = "tar.out"          // TarOut → none, then frames: stdout carries a tar, exit ends it
	MethodStat     = "files.stat"       // TarOut → Stat: what is at a path
	MethodDial     = "dial"             // Dial → none, then raw bytes of a TCP or Unix connection, half-close kept
	MethodSSH      = "ssh"              // → none, then raw bytes of an SSH connection to the agent's server
	MethodWorkIn   = "workspace.in"     // WorkIn → none, then frames: stdin carries a tar, exit ends it
	MethodWorkStat = "workspace.status" // WorkRef → WorkStatus
	MethodWorkOut  = "workspace.out"    // WorkOut → WorkOutReply, then frames: stdout carries the export, exit ends it
)

// InitMode says what becomes PID 1 of the guest.
type InitMode string

// InitAgent keeps the agent as PID 1. Any other value is the path of the image's own init, such as /sbin/init; a copy of
// the agent then runs beside it.
const InitAgent InitMode = "agent"

// BootConfig is vm.json: everything the agent must know to start one VM. It is written afresh for every start.
type BootConfig struct {
	VMID           string    `json:"vm_id"`
	Name           string    `json:"name"` // host name, a DNS label
	Init           InitMode  `json:"init"`
	Time           time.Time `json:"time"`               // the host's clock when the file was written
	Timezone       string    `json:"timezone,omitempty"` // IANA name
	Root           Mount     `json:"root"`               // the root file system; Target is ignored
	Mounts         []Mount   `json:"mounts,omitempty"`   // mounted below the new root, in order
	Net            *Net      `json:"net,omitempty"`
	AuthorizedKeys []string  `json:"authorized_keys,omitempty"` // authorized_keys(5) lines, for root
	HostKey        string    `json:"host_key,omitempty"`        // SSH host key, OpenSSH PEM
	Env            []string  `json:"env,omitempty"`             // NAME=VALUE, for every command the agent starts
	Modules        []string  `json:"modules,omitempty"`         // paths in the initramfs, in load order
	LateModules    []string  `json:"late_modules,omitempty"`    // loaded by path below the modules mount once root is up
	MachineID      string    `json:"machine_id,omitempty"`      // 32 hex digits for /etc/machine-id
	// Template makes the guest nobody's: it comes up as far as all VMs are the same, and waits for [MethodBecome]. Of Net only MAC is
	// set, by which the interface is found then.
	Template bool `json:"template,omitempty"`
}

// Become makes the guest of a template, restored, the guest of a VM. It must be answered before anything else is asked.
type Become struct {
	// Config is as for a boot, but what the template has done is not done again: Root and Mounts only grow, Modules and LateModules are
	// not looked at. Time is the host's clock now.
	Config BootConfig `json:"config"`
	Seed   []byte     `json:"seed"` // 32 bytes or more from the host's random generator, for the guest's: it has the template's state
}

// Mount is one file system to mount. Device is a path such as /dev/vda.
type Mount struct {
	Device   string `json:"device"`
	Target   string `json:"target,omitempty"`
	Type     string `json:"type"` // ext4, erofs, squashfs, tmpfs
	ReadOnly bool   `json:"read_only,omitempty"`
	Options  string `json:"options,omitempty"`
	// Grow asks the agent to extend the file system to the device's size after mounting (EXT4_IOC_RESIZE_FS).
	Grow bool `json:"grow,omitempty"`
	// Optional: a device or type that is missing is reported in Hello.Warnings and does not fail the boot.
	Optional bool `json:"optional,omitempty"`
}

// Net is the guest's one network interface.
type Net struct {
	MAC     string   `json:"mac"`               // selects the interface, lower case with colons
	Address string   `json:"address"`           // CIDR
	Gateway string   `json:"gateway,omitempty"` // IP
	DNS     []string `json:"dns,omitempty"`     // IPs, written to /etc/resolv.conf
	Search  string   `json:"search,omitempty"`  // search domain
	MTU     int      `json:"mtu,omitempty"`
}

// Await makes [MethodHello] wait until something is up, or is known not to come up. The zero value waits for nothing.
type Await struct {
	Network bool `json:"network,omitempty"`
	SSH     bool `json:"ssh,omitempty"`
	Boot    bool `json:"boot,omitempty"` // the last thing that a boot does
}

// Identity replaces who may enter a running guest and what its commands see ([MethodConfig]). A nil field stays as it is.
type Identity struct {
	AuthorizedKeys []string  `json:"authorized_keys"` // authorized_keys(5) lines, for root
	HostKey        string    `json:"host_key,omitempty"`
	Env            []string  `json:"env"`
	Time           time.Time `json:"time,omitzero"` // sets the clock
}

// Hello is the agent's answer to [MethodHello].
type Hello struct {
	Version   string   `json:"version"` // the agent's build version
	VMID      string   `json:"vm_id"`
	BootID    string   `json:"boot_id"` // /proc/sys/kernel/random/boot_id
	Kernel    string   `json:"kernel"`  // uname -r
	Init      InitMode `json:"init"`
	Phases    []Phase  `json:"phases"`             // boot phases in order
	Warnings  []string `json:"warnings,omitempty"` // what did not work and was not essential
	NetworkUp bool     `json:"network_up"`         // the interface has its address
	SSHUp     bool     `json:"ssh_up"`             // listening on [SSHPort]; over the control channel SSH always works
}

// Phase is one step of the agent's boot: At is since the kernel started (CLOCK_BOOTTIME), in milliseconds.
type Phase struct {
	Name string `json:"name"`
	AtMS int64  `json:"at_ms"`
}

// Stats is what the guest uses.
type Stats struct {
	UptimeMS     int64     `json:"uptime_ms"`     // since the kernel started
	Load1        float64   `json:"load1"`         // load average of the last minute
	CPUBusyMS    int64     `json:"cpu_busy_ms"`   // all CPUs, since boot
	MemTotal     int64     `json:"mem_total"`     // bytes
	MemAvailable int64     `json:"mem_available"` // bytes
	AgentRSS     int64     `json:"agent_rss"`     // bytes
	Processes    int       `json:"processes"`
	Disks        []DiskUse `json:"disks"`
	NetRx        int64     `json:"net_rx"` // bytes
	NetTx        int64     `json:"net_tx"` // bytes
}

// DiskUse is the fill of one mounted file system, in bytes.
type DiskUse struct {
	Target   string `json:"target"`
	Size     int64  `json:"size"`
	Used     int64  `json:"used"`
	ReadOnly bool   `json:"read_only,omitempty"`
}

// Ports lists what listens in the guest.
type Ports struct {
	Ports []Port `json:"ports"`
}

// Port is one listening socket.
type Port struct {
	Network string `json:"network"` // tcp, tcp6, udp, udp6
	Address string `json:"address"` // IP
	Port    int    `json:"port"`
	PID     int    `json:"pid,omitempty"`     // who listens; 0 when unknown
	Process string `json:"process,omitempty"` // its name
}

// ExecSpec is a command to run.
type ExecSpec struct {
	Argv  []string          `json:"argv,omitempty"`  // at least one, without Login; looked up in the command's PATH
	Env   []string          `json:"env,omitempty"`   // NAME=VALUE, over the VM's environment
	Cwd   string            `json:"cwd,omitempty"`   // default: the user's home
	User  string            `json:"user,omitempty"`  // name or uid, optional :group; default root
	TTY   bool              `json:"tty,omitempty"`   // with a pseudo-terminal; stderr is then part of stdout
	Size  *frame.WindowSize `json:"size,omitempty"`  // the terminal's first size
	Stdin bool              `json:"stdin,omitempty"` // false: standard input is /dev/null
	Login bool              `json:"login,omitempty"` // Argv empty: run the user's shell as a login shell
	// TimeoutMS is how long the command may run: then its process group gets SIGTERM, and SIGKILL 2 s later; its status is 124, as of
	// timeout(1). 0 is for ever.
	TimeoutMS int64 `json:"timeout_ms,omitempty"`
}

// ExecStarted answers [MethodExec].
type ExecStarted struct {
	PID int `json:"pid"` // in the guest
	// StdinWindow is how many bytes of standard input may be under way that frame.StdinTaken has not told of; 0, from an
	// agent older than this, is no limit.
	StdinWindow int `json:"stdin_window,omitempty"`
}

// TarIn unpacks the tar on stdin below Path, which is created when it is missing. Entries that would leave Path, also
// through a symbolic link, fail the copy.
type TarIn struct {
	Path string `json:"path"` // absolute
	// Rename, when set, is the name under Path that the tar's single top entry gets (cp SRC VM:DST where DST is no directory).
	Rename string `json:"rename,omitempty"`
	// NumericOwner keeps the tar's uid and gid; else everything belongs to User.
	NumericOwner bool   `json:"numeric_owner,omitempty"`
	User         string `json:"user,omitempty"` // name or uid, optional :group; default root
}

// TarOut packs Path, a file or a directory, with its base name as the top entry.
type TarOut struct {
	Path string `json:"path"` // absolute
}

// Stat tells a copy what a guest path is, before it begins.
type Stat struct {
	Exists bool  `json:"exists"` // else the others are zero
	Dir    bool  `json:"dir"`    // it is a directory
	Size   int64 `json:"size"`   // bytes
}

// Dial names what to connect to inside the guest.
type Dial struct {
	Network string `json:"network,omitempty"` // tcp or unix
	Address string `json:"address,omitempty"` // host:port, or a socket's path
}

// WorkRef names a workspace in the guest.
type WorkRef struct {
	Path string `json:"path"` // absolute
	// BaseTree is the tree id of what was carried in, as recorded on the host. A commit id stands for its tree.
	BaseTree string `json:"base_tree"`
}

// WorkIn unpacks a workspace below Path: the working tree, and a .git with pack, index data and configuration, as
// internal/workspace/source streams it. Path must not exist, or be empty.
type WorkIn struct {
	Path string `json:"path"`
}

// WorkStatus says what has changed in a workspace since it was carried in.
type WorkStatus struct {
	Tree    string     `json:"tree,omitempty"`   // tree id of the present state (tracked and untracked, not ignored); empty without git
	Head    string     `json:"head,omitempty"`   // commit
	Branch  string     `json:"branch,omitempty"` // empty when detached
	Git     bool       `json:"git"`              // the guest has git
	Changed bool       `json:"changed"`          // the state differs from BaseTree, or there are Refs
	Files   []WorkFile `json:"files,omitempty"`
	Omitted int        `json:"omitted,omitempty"` // changed files that Files leaves out to stay within one line
	// Refs are branches, tags and stashes with commits that neither HEAD nor the base commit contains. They count as a
	// change; of the formats only a bundle carries them.
	Refs  []string `json:"refs,omitempty"`
	Notes []string `json:"notes,omitempty"` // what an export leaves out, a sentence each
}

// WorkFile is one changed path; Status is git's letter: A, M, D, T. A path with control characters, quotes, backslashes or
// bytes that are not UTF-8 is quoted as git does it: in double quotes, with C's escapes and octal numbers.
type WorkFile struct {
	Path   string `json:"path"`
	Status string `json:"status"`
}

// WorkOut asks for an export: everything since BaseTree, commits, staged, unstaged and untracked files alike.
type WorkOut struct {
	WorkRef
	Format string `json:"format"` // patch, bundle or tar
	// BaseCommit is the commit the workspace started from; a bundle holds what is not reachable from it.
	BaseCommit string `json:"base_commit"`
}

// WorkOutReply says what the export's bytes are.
type WorkOutReply struct {
	Format string     `json:"format"` // as asked; tar where patch was asked and the guest has no git: then it is for workspace.PatchFromTar
	Status WorkStatus `json:"status"` // the exact state that is exported
}
