package api

import (
	"time"

	"github.com/banger-vm/banger/api/guestapi"
)

// VM is one VM as the daemon reports it. Sizes are bytes unless a name says MiB.
type VM struct {
	ID       string   `json:"id"`    // 12 hex digits
	Name     string   `json:"name"`  // a DNS label
	State    string   `json:"state"` // created, starting, running, paused, stopping, stopped, failed
	Image    string   `json:"image"`
	ImageID  string   `json:"image_id"`
	Kernel   string   `json:"kernel"`
	KernelID string   `json:"kernel_id"`
	VMM      string   `json:"vmm"`                 // as asked: auto, qemu, firecracker
	Engine   string   `json:"engine,omitempty"`    // what runs it now, such as qemu/tcg
	Start    string   `json:"start,omitempty"`     // how it was started last: warm, from a template, or cold, by a boot
	StartWhy string   `json:"start_why,omitempty"` // why not warm
	Init     string   `json:"init"`                // agent, or the path of the image's own init
	VCPU     int      `json:"vcpu"`
	MemMiB   int      `json:"mem_mib"`
	RootSize int64    `json:"root_size"`
	DiskSize int64    `json:"disk_size"`
	NAT      bool     `json:"nat"`               // the guest reaches out
	Group    string   `json:"group,omitempty"`   // VMs of one group reach each other
	Publish  []string `json:"publish,omitempty"` // HOSTIP:PORT:GUESTPORT: the host listens for the guest's port
	Env      []string `json:"env,omitempty"`     // NAME=VALUE, for every command in the guest
	// AutoStopMS is after how long without use a running VM is stopped; 0 is never. It is the configured default unless the
	// VM was given its own.
	AutoStopMS int64       `json:"auto_stop_ms"`
	Address    string      `json:"address,omitempty"` // of the guest, where the host can reach it: in mode bridge
	MAC        string      `json:"mac,omitempty"`
	PID        int         `json:"pid,omitempty"`        // of the VMM, when running
	BootID     string      `json:"boot_id,omitempty"`    // the guest kernel's, when running
	LastError  string      `json:"last_error,omitempty"` // why it failed, or did not start
	Conditions []Condition `json:"conditions,omitempty"`
	Workspace  *Workspace  `json:"workspace,omitempty"`
	Created    time.Time   `json:"created"`
	Started    time.Time   `json:"started,omitzero"`
	Stopped    time.Time   `json:"stopped,omitzero"`
	LastUsed   time.Time   `json:"last_used,omitzero"`
}

// Condition is something that is wrong with a VM which runs all the same.
type Condition struct {
	Type    string    `json:"type"` // the capability that is amiss, such as agent
	Message string    `json:"message"`
	Since   time.Time `json:"since"`
}

// VMList is the result of vm.list, oldest first.
type VMList struct {
	VMs []VM `json:"vms"`
}

// VMCreate is the parameter of vm.create and vm.create.begin. Zero values mean the configured default.
type VMCreate struct {
	Name     string   `json:"name,omitempty"`      // a DNS label; empty: two words are chosen
	Image    string   `json:"image,omitempty"`     // name, id or prefix of one; the default image is built when there is none
	Kernel   string   `json:"kernel,omitempty"`    // as Image; empty: the one that the image names
	VMM      string   `json:"vmm,omitempty"`       // auto (default), qemu, firecracker
	Init     string   `json:"init,omitempty"`      // agent, or a path; empty: as the image says
	VCPU     int      `json:"vcpu,omitempty"`      // processors
	MemMiB   int      `json:"mem_mib,omitempty"`   // memory
	RootSize int64    `json:"root_size,omitempty"` // bytes
	DiskSize int64    `json:"disk_size,omitempty"` // bytes, of the work disk
	NAT      *bool    `json:"nat,omitempty"`       // false: the guest does not reach out
	Group    string   `json:"group,omitempty"`     // a DNS label; VMs of one group reach each other, others do not
	Publish  []string `json:"publish,omitempty"`   // [HOSTIP:]PORT:GUESTPORT; the host listens for the guest's port, on 127.0.0.1 unless told
	Env      []string `json:"env,omitempty"`       // NAME=VALUE
	// AutoStopMS stops the VM when it was not used for so long; 0 is never, nil the configured default.
	AutoStopMS *int64 `json:"auto_stop_ms,omitempty"`
	Start      bool   `json:"start,omitempty"` // and start it
	Cold       bool   `json:"cold,omitempty"`  // it boots in any case, and does not begin with a template
	// Ephemeral VMs belong to a client: when no vm.lease is held on one any more, the daemon exports what changed in its
	// workspace to its patches directory and deletes it. `vm run --rm` makes such VMs.
	Ephemeral bool `json:"ephemeral,omitempty"`
}

// VMStop is the parameter of vm.stop.
type VMStop struct {
	Ref
	// TimeoutMS is how long the guest may take before it is killed; 0 is the default, 20 s.
	TimeoutMS int64 `json:"timeout_ms,omitempty"`
}

// VMKill is the parameter of vm.kill.
type VMKill struct {
	Ref
	// Signal goes to the VMM's process: KILL, the default, or TERM, INT, QUIT, HUP or ABRT, after which it is killed if it has not
	// ended within 10 s.
	Signal string `json:"signal,omitempty"`
}

// VMRestart is the parameter of vm.restart.
type VMRestart struct {
	Ref
	TimeoutMS int64 `json:"timeout_ms,omitempty"` // as for vm.stop
}

// VMSet is the parameter of vm.set. Zero values change nothing. All but Name and AutoStopMS take effect at a start: while the VM
// runs they are refused with kind precondition, unless Restart is set.
type VMSet struct {
	Ref
	Name     string    `json:"name,omitempty"`      // a DNS label
	VCPU     int       `json:"vcpu,omitempty"`      // processors
	MemMiB   int       `json:"mem_mib,omitempty"`   // memory
	RootSize int64     `json:"root_size,omitempty"` // bytes; disks only grow
	DiskSize int64     `json:"disk_size,omitempty"` // bytes, of the work disk; disks only grow
	NAT      *bool     `json:"nat,omitempty"`       // false: the guest does not reach out
	Env      []string  `json:"env,omitempty"`       // NAME=VALUE, added or replaced
	UnsetEnv []string  `json:"unset_env,omitempty"` // names
	Group    *string   `json:"group,omitempty"`     // as for vm.create; empty: none
	Publish  *[]string `json:"publish,omitempty"`   // as for vm.create, in place of all that were; empty: none
	// AutoStopMS is as for vm.create; -1 is the configured default again.
	AutoStopMS *int64 `json:"auto_stop_ms,omitempty"`
	Restart    bool   `json:"restart,omitempty"` // stop a running VM, change it, and start it again
}

// VMStatsRequest is the parameter of vm.stats. Without references it means all VMs that run, and what their guests said last, which
// is at most two times stats_interval old; guests of VMs that are named are asked now.
type VMStatsRequest struct {
	Refs []string `json:"refs,omitempty"` // names, ids, or prefixes of ids that only one has
}

// VMStatsList is the result of vm.stats, in the order of the references, or oldest first.
type VMStatsList struct {
	VMs []VMStats `json:"vms"`
}

// VMStats is what a VM uses, seen from the host and from the guest. Amounts are bytes. A VM that does not run uses disk only.
type VMStats struct {
	ID            string          `json:"id"`
	Name          string          `json:"name"`
	State         string          `json:"state"`
	At            time.Time       `json:"at"`
	VCPU          int             `json:"vcpu"`
	CPUMS         int64           `json:"cpu_ms"` // processor time of the VMM since the machine started; the difference of two calls is what it used between
	Mem           int64           `json:"mem"`    // of the guest
	MemResident   int64           `json:"mem_resident"`
	RootAllocated int64           `json:"root_allocated"` // of the host's disk, by the root disk
	DiskAllocated int64           `json:"disk_allocated"` // of the host's disk, by the work disk
	Guest         *guestapi.Stats `json:"guest,omitempty"`
	GuestAt       time.Time       `json:"guest_at,omitzero"`     // when the guest said so
	GuestError    string          `json:"guest_error,omitempty"` // why a running VM's Guest is missing
}

// VMPing is the result of vm.ping.
type VMPing struct {
	RTTMicros int64 `json:"rtt_us"` // from the daemon to the agent and back
}

// VMPrune is the parameter of vm.prune.
type VMPrune struct {
	OlderThanMS int64 `json:"older_than_ms,omitempty"` // only VMs that were neither used, started nor stopped for so long
	DryRun      bool  `json:"dry_run,omitempty"`       // delete nothing
}

// VMPruned is the result of vm.prune.
type VMPruned struct {
	Deleted []PrunedVM `json:"deleted"` // or, in a dry run, what would be
	Kept    []PrunedVM `json:"kept"`    // that do not run either, each with the reason
}

// PrunedVM is one VM that vm.prune looked at.
type PrunedVM struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Freed  int64  `json:"freed,omitempty"` // bytes of the host's disk
	Reason string `json:"reason,omitempty"`
}

// VMDelete is the parameter of vm.delete. Without Force a running VM, and one with unexported workspace changes, is
// refused.
type VMDelete struct {
	Ref
	Force bool `json:"force,omitempty"` // kill it if it runs, and lose what was not exported
}

// VMLogs is the parameter of vm.logs, a stream of raw bytes.
type VMLogs struct {
	Ref
	Source string `json:"source,omitempty"` // console (default) or vmm
	Tail   int    `json:"tail,omitempty"`   // lines from the end; 0 is all
	// Since is a moment; what was printed before is left out, to within a few seconds. Only of the console.
	Since  time.Time `json:"since,omitzero"`
	Follow bool      `json:"follow,omitempty"` // go on with what is added, until the client hangs up
}

// VMExec is the parameter of vm.exec, a stream of frames. To the command go stdin, stdin-eof, resize and signal; from it come
// stdout, stderr and, last, exit.
type VMExec struct {
	Ref
	guestapi.ExecSpec
}

// VMDial is the parameter of vm.dial, a stream of raw bytes. What is half-closed here is half-closed in the guest.
type VMDial struct {
	Ref
	guestapi.Dial
	SSH bool `json:"ssh,omitempty"` // instead of an address: the agent's SSH server, which needs no network
}

// VMCopyIn is the parameter of vm.copy-in, a stream of frames: stdin carries a tar and stdin-eof ends it; exit says how it
// went.
type VMCopyIn struct {
	Ref
	guestapi.TarIn
}

// VMCopyOut is the parameter of vm.copy-out, a stream of frames: stdout carries a tar, exit ends it.
type VMCopyOut struct {
	Ref
	guestapi.TarOut
}

// VMSSH is what an SSH client needs to reach a VM.
type VMSSH struct {
	Name       string `json:"name"`
	User       string `json:"user"`
	Identity   string `json:"identity"`    // path of the private key
	KnownHosts string `json:"known_hosts"` // path of banger's own known_hosts file
	HostAlias  string `json:"host_alias"`  // HostKeyAlias under which the key is pinned
}

// VMHealth is the result of vm.health.
type VMHealth struct {
	guestapi.Hello
	Stats guestapi.Stats `json:"stats"`
}

// VMPorts is the result of vm.ports.
type VMPorts struct {
	Ports []VMPort `json:"ports"`
}

// VMPort is a socket that listens in a guest, and where the host reaches it.
type VMPort struct {
	Network   string   `json:"network"`             // tcp, tcp6, udp, udp6
	Address   string   `json:"address"`             // IP, in the guest
	Port      int      `json:"port"`                // in the guest
	PID       int      `json:"pid,omitempty"`       // who listens; 0 when unknown
	Process   string   `json:"process,omitempty"`   // its name
	Published []string `json:"published,omitempty"` // addresses of the host that listen for it
	URL       string   `json:"url,omitempty"`       // of a TCP port that the host reaches; whether it speaks HTTP is not known
}

// VMStat is the parameter of vm.stat: what is at a guest path, links followed.
type VMStat struct {
	Ref
	Path string `json:"path"` // absolute
}
