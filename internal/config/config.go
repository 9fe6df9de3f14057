// Package config owns what the user may set, and every name on disk.
//
// [Paths] are the files and directories of one banger; [Config] is its configuration, layered: the default, the file
// (TOML), the environment (BANGER_KEY), and overrides by flags. A later layer wins, and each value remembers which one set
// it. A key that does not exist is an error that names the nearest one; no value is corrected silently.
package config

import (
	"encoding"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

// Config is the configuration. Field comments are the documentation of the keys.
type Config struct {
	LogLevel       string   `toml:"log_level"`       // of the daemon's log: debug, info, warn or error
	VMM            string   `toml:"vmm"`             // what runs VMs: auto (the best that can), qemu or firecracker
	QEMUBin        string   `toml:"qemu_bin"`        // QEMU's program: a path, or a name on PATH
	QEMUAccel      string   `toml:"qemu_accel"`      // auto: KVM where it runs guests, else emulation; kvm or tcg (emulation) insists
	Firecracker    string   `toml:"firecracker_bin"` // Firecracker's program: a path, or a name on PATH
	JailerBin      string   `toml:"jailer_bin"`      // its jailer, of the same version: a path, or a name on PATH
	Jailer         string   `toml:"jailer"`          // whether Firecracker is jailed: auto (where root may, and the jailer is there), on or off
	DefaultImage   string   `toml:"default_image"`   // the image of VMs that name none; empty: banger's own, built when it is needed
	Kernel         string   `toml:"kernel"`          // the kernel of images that name none; empty: banger's own, imported when it is needed
	AutoStop       Duration `toml:"auto_stop_after"` // after how long without use a running VM is stopped; 0: never
	WarmStarts     bool     `toml:"warm_starts"`     // whether VMs start from a template where they can: a guest that was booted once and saved
	TemplateBudget Size     `toml:"template_budget"` // how much disk templates may take together; those that were used last stay
	StatsInterval  Duration `toml:"stats_interval"`  // how often guests are asked what they use, for whoever wants to see all at once; 0: only when that happens
	// MetricsListen is where metrics are served over HTTP, such as 127.0.0.1:9190; empty: nowhere. Requests must have that host, an IP
	// address or localhost as their Host.
	MetricsListen string `toml:"metrics_listen"`
	MetricsPublic bool   `toml:"metrics_public"` // whether metrics_listen may be an address that others can reach
	// WebListen is where the web UI is served: a loopback address and port; off; or auto: 127.0.0.1:7777 for a user's daemon, a port that
	// is free below BANGER_ROOT, and off for the system's daemon.
	WebListen string `toml:"web_listen"`
	Network   struct {
		Mode    string `toml:"mode"`     // user (the VMM's own stack; no root), bridge (root), or auto: bridge for the system's daemon where it can be
		NAT     bool   `toml:"nat"`      // whether guests reach the internet
		Bridge  string `toml:"bridge"`   // name of the bridge
		CIDR    string `toml:"cidr"`     // the guests' network on the bridge, such as 10.209.0.0/16; auto: one that the host does not use
		TapPool int    `toml:"tap_pool"` // how many idle network interfaces wait on the bridge
		DNS     string `toml:"dns"`      // where the host asks for the names of VMs in mode bridge; empty: at the bridge's address only
	} `toml:"network"`
	Disk struct {
		Cloner string `toml:"cloner"` // how disks are cloned: auto, reflink, qcow2, dmsnap (device mapper; root) or copy
	} `toml:"disk"`
	VMDefaults struct {
		VCPU     int  `toml:"vcpu"`      // processors
		Memory   Size `toml:"memory"`    // of the guest
		DiskSize Size `toml:"disk_size"` // of the work disk, /root; 0: the image's
		RootSize Size `toml:"root_size"` // of the root disk; 0: the image's
	} `toml:"vm_defaults"`

	origin map[string]string // key to origin, where it is not the default
}

// Default returns the configuration of a user who has set nothing.
func Default() *Config {
	c := &Config{LogLevel: "info", VMM: "auto", QEMUBin: "qemu-system-x86_64", QEMUAccel: "auto", Firecracker: "firecracker", JailerBin: "jailer", Jailer: "auto", StatsInterval: Duration(10 * time.Second), WarmStarts: true, TemplateBudget: 4 << 30, WebListen: "auto", origin: map[string]string{}}
	c.Network.Mode, c.Network.NAT, c.Network.Bridge, c.Network.CIDR = "auto", true, "banger0", "auto"
	c.Network.TapPool, c.Network.DNS = 4, "127.0.0.1:42069"
	c.Disk.Cloner = "auto"
	c.VMDefaults.VCPU, c.VMDefaults.Memory = 1, 1<<30
	return c
}

// key is one row of the table of keys: its name in the file, where its value is (*string, *int, *bool, *Size or *Duration), and what
// it may be.
type key struct {
	name    string
	value   any
	choices []string                // of a *string; nil is anything
	empty   bool                    // whether it may be empty
	check   func(text string) error // more conditions
}

func (c *Config) keys() []key {
	return []key{
		{name: "log_level", value: &c.LogLevel, choices: []string{"debug", "info", "warn", "error"}},
		{name: "vmm", value: &c.VMM, choices: []string{"auto", "qemu", "firecracker"}},
		{name: "qemu_bin", value: &c.QEMUBin},
		{name: "qemu_accel", value: &c.QEMUAccel, choices: []string{"auto", "kvm", "tcg"}},
		{name: "firecracker_bin", value: &c.Firecracker},
		{name: "jailer_bin", value: &c.JailerBin},
		{name: "jailer", value: &c.Jailer, choices: []string{"auto", "on", "off"}},
		{name: "default_image", value: &c.DefaultImage, empty: true},
		{name: "kernel", value: &c.Kernel, empty: true},
		{name: "auto_stop_after", value: &c.AutoStop},
		{name: "warm_starts", value: &c.WarmStarts},
		{name: "template_budget", value: &c.TemplateBudget},
		{name: "stats_interval", value: &c.StatsInterval},
		{name: "metrics_listen", value: &c.MetricsListen, empty: true},
		{name: "metrics_public", value: &c.MetricsPublic},
		{name: "web_listen", value: &c.WebListen},
		{name: "network.mode", value: &c.Network.Mode, choices: []string{"auto", "user", "bridge"}},
		{name: "network.nat", value: &c.Network.NAT},
		{name: "network.bridge", value: &c.Network.Bridge, check: linkName},
		{name: "network.cidr", value: &c.Network.CIDR, check: autoOrNetwork},
		{name: "network.tap_pool", value: &c.Network.TapPool, check: poolSize},
		{name: "network.dns", value: &c.Network.DNS, empty: true, check: emptyOrAddrPort},
		{name: "disk.cloner", value: &c.Disk.Cloner, choices: []string{"auto", "reflink", "qcow2", "dmsnap", "copy"}},
		{name: "vm_defaults.vcpu", value: &c.VMDefaults.VCPU, check: atLeastOne},
		{name: "vm_defaults.memory", value: &c.VMDefaults.Memory, check: wholeMiB},
		{name: "vm_defaults.disk_size", value: &c.VMDefaults.DiskSize, check: zeroOrMiB},
		{name: "vm_defaults.root_size", value: &c.VMDefaults.RootSize, check: zeroOrMiB},
	}
}

// Load returns the configuration of the layers: file, which need not exist; the environment, by lookup; and overrides, key
// to value. Errors are of kind invalid and name the origin of the bad value, a file's with its line where it is known.
func Load(file string, lookup func(string) (string, bool), overrides map[string]string) (*Config, error) {
	c := Default()
	data, err := os.ReadFile(file)
	switch {
	case err == nil:
		if err := c.decode(file, data); err != nil {
			return nil, err
		}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	for _, k := range c.keys() {
		if text, ok := lookup(k.variable()); ok {
			if err := c.set(k, text, "environment "+k.variable()); err != nil {
				return nil, err
			}
		}
	}
	for name, text := range overrides {
		i := slices.IndexFunc(c.keys(), func(k key) bool { return k.name == name })
		if i < 0 {
			return nil, c.unknown("flag", name)
		}
		if err := c.set(c.keys()[i], text, "flag"); err != nil {
			return nil, err
		}
	}
	for _, k := range c.keys() {
		if err := k.valid(); err != nil {
			return nil, c.bad(k, err)
		}
	}
	return c, nil
}

// Values returns every key in the order of the documentation, with its value and where that came from.
func (c *Config) Values() []api.ConfigValue {
	var out []api.ConfigValue
	for _, k := range c.keys() {
		out = append(out, api.ConfigValue{Key: k.name, Value: k.text(), Origin: c.originOf(k.name)})
	}
	return out
}

// WebAddress is what web_listen means for the daemon of p: an address, or empty.
func (c *Config) WebAddress(p Paths) string {
	switch {
	case c.WebListen == "off", c.WebListen == "auto" && p.System:
		return ""
	case c.WebListen == "auto" && p.Root != "":
		return "127.0.0.1:0"
	case c.WebListen == "auto":
		return "127.0.0.1:7777"
	}
	return c.WebListen
}

func (c *Config) originOf(name string) string {
	if o := c.origin[name]; o != "" {
		return o
	}
	return "default"
}

// set gives k the value that text means.
func (c *Config) set(k key, text, origin string) error {
	c.origin[k.name] = origin
	var err error
	switch v := k.value.(type) {
	case *string:
		*v = text
	case *int:
		if *v, err = strconv.Atoi(text); err != nil {
			err = errkind.New(api.KindInvalid, "%q is not a number", text)
		}
	case *bool:
		if *v, err = strconv.ParseBool(text); err != nil {
			err = errkind.New(api.KindInvalid, "%q is neither true nor false", text)
		}
	case encoding.TextUnmarshaler:
		err = v.UnmarshalText([]byte(text))
	}
	if err != nil {
		return c.bad(k, err)
	}
	return nil
}

// bad says which key of which layer has the bad value that err tells of.
func (c *Config) bad(k key, err error) error {
	return fmt.Errorf("configuration key %s (%s): %w", k.name, c.originOf(k.name), err)
}

// variable is k's name in the environment: vm_defaults.memory is BANGER_VM_DEFAULTS_MEMORY.
func (k key) variable() string {
	return "BANGER_" + strings.ToUpper(strings.ReplaceAll(k.name, ".", "_"))
}

func (k key) text() string {
	switch v := k.value.(type) {
	case *string:
		return *v
	case *int:
		return strconv.Itoa(*v)
	case *bool:
		return strconv.FormatBool(*v)
	}
	return fmt.Sprint(k.value) // a *Size or *Duration
}

func (k key) valid() error {
	text := k.text()
	switch {
	case text == "" && !k.empty:
		return errkind.New(api.KindInvalid, "it is empty")
	case k.choices != nil && !slices.Contains(k.choices, text):
		return errkind.WithHint(errkind.New(api.KindInvalid, "bad value %q", text), "use one of %s", strings.Join(k.choices, ", "))
	case k.check != nil:
		return k.check(text)
	}
	return nil
}

func atLeastOne(text string) error {
	if n, err := strconv.Atoi(text); err != nil || n < 1 {
		return errkind.New(api.KindInvalid, "%s is less than 1", text)
	}
	return nil
}

func zeroOrMiB(text string) error {
	if text == "0" {
		return nil
	}
	return wholeMiB(text)
}

func wholeMiB(text string) error {
	if n, err := ParseSize(text); err != nil || n < 1<<20 || n%(1<<20) != 0 {
		return errkind.WithHint(errkind.New(api.KindInvalid, "%s is not a whole number of MiB", text), "write a size as 512M or 2G")
	}
	return nil
}
