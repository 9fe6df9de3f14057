package config

import (
	"crypto/sha256"
	"encoding/hex"
	"path/filepath"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/host"
)

// Paths are the places on disk of one banger: docs/ONDISK.md says what is in each, and who may remove it. Everything that
// must outlive a reboot is below State; sockets are below Run; what can be made again is below Cache.
type Paths struct {
	Root   string // BANGER_ROOT, or empty
	State  string
	Run    string
	Cache  string
	Etc    string
	System bool // these are the system's: systemd starts the daemon, and members of [Group] may call it
}

// Group is the system group whose members may use the system's daemon.
const Group = "banger"

// Unix socket paths, the terminating zero aside, fit sun_path of unix(7); longestSocket is room for a socket's name in a
// VM's directory.
const (
	maxSocketPath = 107
	longestSocket = len("/vms/0123456789ab/") + 16
)

// FindPaths returns the paths that the environment asks for: everything below BANGER_ROOT when that is set, the system's
// directories with BANGER_SYSTEM=1, else the user's by the XDG base directory specification 0.8. It creates nothing. Paths too
// long for a Unix socket are of kind invalid.
//
// The user's sockets are in the state directory and not in XDG_RUNTIME_DIR: that is emptied when the user logs out, and VMs
// and daemon run on.
func FindPaths(lookup func(string) (string, bool)) (Paths, error) {
	p, err := choosePaths(lookup)
	if err != nil {
		return Paths{}, err
	}
	if over := len(p.Run) + longestSocket - maxSocketPath; over > 0 {
		return Paths{}, errkind.WithHint(
			errkind.New(api.KindInvalid, "directory %q is %d bytes too long for Unix sockets below it", p.Run, over),
			"set BANGER_ROOT to a shorter directory, of at most %d bytes", maxSocketPath-longestSocket-len("/run"))
	}
	return p, nil
}

// SystemPaths are the paths of the system's daemon.
func SystemPaths() Paths {
	return Paths{State: "/var/lib/banger", Run: "/run/banger", Cache: "/var/cache/banger", Etc: "/etc/banger", System: true}
}

// ClientPaths returns the paths of the daemon that the caller talks to. They are those of [FindPaths], unless the environment
// leaves the choice (neither BANGER_ROOT nor BANGER_SYSTEM is set) and mayEnter says that the caller may enter the directory of
// the system's sockets: then they are the system's, whether its daemon runs or not. A daemon never chooses like this.
func ClientPaths(lookup func(string) (string, bool), mayEnter func(dir string) bool) (Paths, error) {
	root, _ := lookup("BANGER_ROOT")
	system, _ := lookup("BANGER_SYSTEM")
	if p := SystemPaths(); root == "" && system == "" && mayEnter(p.Run) {
		return p, nil
	}
	return FindPaths(lookup)
}

func choosePaths(lookup func(string) (string, bool)) (Paths, error) {
	if root, ok := lookup("BANGER_ROOT"); ok && root != "" {
		root, err := filepath.Abs(root)
		if err != nil {
			return Paths{}, err
		}
		return Paths{Root: root, State: filepath.Join(root, "state"), Run: filepath.Join(root, "run"),
			Cache: filepath.Join(root, "cache"), Etc: filepath.Join(root, "etc")}, nil
	}
	if system, _ := lookup("BANGER_SYSTEM"); system == "1" {
		return SystemPaths(), nil
	}
	home, _ := lookup("HOME")
	base := func(variable, fallback string) string {
		dir, _ := lookup(variable)
		if !filepath.IsAbs(dir) { // the specification wants relative ones ignored
			dir = filepath.Join(home, fallback)
		}
		return filepath.Join(dir, "banger")
	}
	p := Paths{State: base("XDG_STATE_HOME", ".local/state"), Cache: base("XDG_CACHE_HOME", ".cache"),
		Etc: base("XDG_CONFIG_HOME", ".config")}
	p.Run = filepath.Join(p.State, "run")
	for _, dir := range []string{p.State, p.Cache, p.Etc} {
		if !filepath.IsAbs(dir) {
			return Paths{}, errkind.WithHint(errkind.New(api.KindInvalid, "no home directory for banger's files"),
				"set HOME, or BANGER_ROOT to the directory to use")
		}
	}
	return p, nil
}

// Dirs are the directories that are private to the caller, parents first: all but the Run that members of [Group] may enter.
func (p Paths) Dirs() []string {
	dirs := []string{p.State, p.Cache, p.Etc, p.VMsDir(), p.VMRunsDir(), p.ImagesDir(), p.KernelsDir(), p.KeysDir(), p.PatchesDir(),
		p.InitramfsCache(), p.TemplatesDir(), filepath.Join(p.Run, "templates"), p.ScratchDir(), filepath.Join(p.Run, "scratch")}
	if gid, err := p.SocketGroup(); err == nil && gid < 0 {
		dirs = append([]string{p.State, p.Run}, dirs[1:]...)
	}
	return dirs
}

// Make creates the directories, private to the caller. Those that exist must be the caller's own. The members of [Group] may
// enter the system's Run, and no other.
func (p Paths) Make() error {
	gid, err := p.SocketGroup()
	if err != nil {
		return err
	}
	if gid >= 0 {
		if err := host.GroupDir(p.Run, gid); err != nil {
			return err
		}
	}
	for _, dir := range p.Dirs() {
		if err := host.PrivateDir(dir); err != nil {
			return err
		}
	}
	return nil
}

// SocketGroup returns the id of the group whose members may use the daemon's socket, and -1 where there is none: for every
// daemon but the system's, and for that one before `banger system install` has made the group.
func (p Paths) SocketGroup() (int, error) {
	if !p.System {
		return -1, nil
	}
	gid, err := host.GroupID(Group)
	if errkind.Is(err, api.KindNotFound) {
		return -1, nil
	}
	return gid, err
}

// Socket is where the daemon listens.
func (p Paths) Socket() string { return filepath.Join(p.Run, "bangerd.sock") }

// Lock is the file that a daemon holds locked for its life. It is beside the database, which it protects.
func (p Paths) Lock() string { return filepath.Join(p.State, "bangerd.lock") }

// DB is the database.
func (p Paths) DB() string { return filepath.Join(p.State, "banger.db") }

// Cgroup is the name of the control group in which machines have theirs. Like the database, there is one for each State.
func (p Paths) Cgroup() string {
	sum := sha256.Sum256([]byte(p.State))
	return "banger-" + hex.EncodeToString(sum[:4])
}

// Manifest lists what `banger system install` has written, for the system's paths only.
func (p Paths) Manifest() string { return filepath.Join(p.State, "installed.json") }

// Forwarding is there while packet forwarding is on because banger switched it on, for mode bridge.
func (p Paths) Forwarding() string { return filepath.Join(p.Run, "ip_forward") }

// DaemonLog is the daemon's log.
func (p Paths) DaemonLog() string { return filepath.Join(p.State, "bangerd.log") }

// VMsDir is the parent of all [Paths.VMDir].
func (p Paths) VMsDir() string { return filepath.Join(p.State, "vms") }

// VMDir holds the disks, logs and handle file of a VM.
func (p Paths) VMDir(id banger.VMID) string { return filepath.Join(p.VMsDir(), string(id)) }

// MachineFile is the handle of the machine of the VM whose [Paths.VMDir] is vmDir.
func MachineFile(vmDir string) string { return filepath.Join(vmDir, "machine.json") }

// VMRunsDir is the parent of all [Paths.VMRunDir].
func (p Paths) VMRunsDir() string { return filepath.Join(p.Run, "vms") }

// VMRunDir holds the sockets of a VM's machine. Names in it are at most 16 bytes.
func (p Paths) VMRunDir(id banger.VMID) string { return filepath.Join(p.VMRunsDir(), string(id)) }

// TemplatesDir holds one directory for each template, from which VMs start warm.
func (p Paths) TemplatesDir() string { return filepath.Join(p.State, "templates") }

// TemplateRunDir holds the sockets of the machine that becomes a template.
func (p Paths) TemplateRunDir(id banger.VMID) string {
	return filepath.Join(p.Run, "templates", string(id))
}

// ScratchDir holds one directory for each guest that is nobody's VM, while it works.
func (p Paths) ScratchDir() string { return filepath.Join(p.State, "scratch") }

// ScratchRunDir holds the sockets of such a guest's machine.
func (p Paths) ScratchRunDir(id banger.VMID) string {
	return filepath.Join(p.Run, "scratch", string(id))
}

// ImagesDir holds one directory for each managed image.
func (p Paths) ImagesDir() string { return filepath.Join(p.State, "images") }

// KernelsDir holds one directory for each kernel.
func (p Paths) KernelsDir() string { return filepath.Join(p.State, "kernels") }

// PatchesDir holds exports that nobody was there to take.
func (p Paths) PatchesDir() string { return filepath.Join(p.State, "patches") }

// KeysDir holds banger's own SSH key.
func (p Paths) KeysDir() string { return filepath.Join(p.State, "keys") }

// SSHKey is the private key that opens guests.
func (p Paths) SSHKey() string { return filepath.Join(p.KeysDir(), "id_ed25519") }

// WebKey is the key that logins to the web UI are made with.
func (p Paths) WebKey() string { return filepath.Join(p.KeysDir(), "web") }

// InitramfsCache holds base archives, one for each kernel and agent.
func (p Paths) InitramfsCache() string { return filepath.Join(p.Cache, "initramfs") }

// ConfigFile is the configuration file, which need not exist.
func (p Paths) ConfigFile() string { return filepath.Join(p.Etc, "config.toml") }
