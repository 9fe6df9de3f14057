package api

// Empty is the parameter or result of a method that has none.
type Empty struct{}

// Ref names a VM, image or kernel: by name, id, or a prefix of an id that only one has.
type Ref struct {
	Ref string `json:"ref"` // its name, id, or a prefix of its id that only one has
}

// Ping is the result of daemon.ping.
type Ping struct {
	Protocol int    `json:"protocol"` // [ProtocolVersion]
	Version  string `json:"version"`  // build version of the daemon
	PID      int    `json:"pid"`      // of the daemon
}

// Info is the result of daemon.info.
type Info struct {
	Ping
	StartedAt     string `json:"started_at"`     // RFC 3339
	Root          string `json:"root,omitempty"` // BANGER_ROOT, empty when that is not set
	StateDir      string `json:"state_dir"`
	RunDir        string `json:"run_dir"`
	CacheDir      string `json:"cache_dir"`
	Config        string `json:"config"`         // path of the configuration file
	Log           string `json:"log"`            // path of the daemon's log
	Running       int    `json:"running"`        // VMs that run
	VMs           int    `json:"vms"`            // all VMs
	VMM           string `json:"vmm"`            // what `vmm = "auto"` means on this host, with its accelerator
	VMMReason     string `json:"vmm_reason"`     // why that one
	Cloner        string `json:"cloner"`         // how root disks are made: reflink, qcow2, dmsnap, copy
	Network       string `json:"network"`        // mode of the network: user or bridge
	NetworkReason string `json:"network_reason"` // why that one
	CPUs          int    `json:"cpus"`           // of the host
	MemTotal      int64  `json:"mem_total"`      // bytes, of the host
	MemAvailable  int64  `json:"mem_available"`  // bytes that programs can have without swapping
	DiskTotal     int64  `json:"disk_total"`     // bytes, of the file system of StateDir
	DiskFree      int64  `json:"disk_free"`      // bytes that the daemon's user can have
}

// WebLogin is the result of web.login.
type WebLogin struct {
	URL string `json:"url"` // logs one browser in, once, within five minutes
}

// Check is one finding of daemon.doctor and daemon.fix. A check that finds several things wrong gives several.
type Check struct {
	Name   string `json:"name"`
	Status string `json:"status"`        // ok, warn (VMs run all the same), fail, fixed
	Detail string `json:"detail"`        // what is so; for fixed, also what was done
	Fix    string `json:"fix,omitempty"` // what to do, for warn and fail
	// Fixable says that daemon.fix can put it right.
	Fixable bool `json:"fixable,omitempty"`
}

// DoctorAsk is the parameter of daemon.doctor and daemon.fix.
type DoctorAsk struct {
	// Full reads all files of images and kernels and compares their digests; that takes as long as reading them does.
	Full bool `json:"full,omitempty"`
}

// Doctor is the result of daemon.doctor and daemon.fix.
type Doctor struct {
	Checks []Check `json:"checks"`
}

// Metrics is the result of daemon.metrics.
type Metrics struct {
	Text string `json:"text"` // in the text format of Prometheus, version 0.0.4; docs/METRICS.md lists the names
}

// ConfigValue is one configuration key with its value and origin.
type ConfigValue struct {
	Key    string `json:"key"`
	Value  string `json:"value"`
	Origin string `json:"origin"` // default, file PATH, environment NAME, flag
}

// ConfigList is the result of daemon.config.
type ConfigList struct {
	Values []ConfigValue `json:"values"`
}
