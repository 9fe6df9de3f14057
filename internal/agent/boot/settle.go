package boot

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/agent/facts"
	"github.com/banger-vm/banger/internal/agent/guestnet"
)

// Prepare gives the guest what processes inherit or see from their first moment: name, limits.
func Prepare(cfg guestapi.BootConfig, j *facts.Journal) {
	j.Warn("set the host name", unix.Sethostname([]byte(cfg.Name)))
	j.Warn("set limits", setLimits())
}

// Tune changes settings of the kernel, the same for all VMs.
func Tune(j *facts.Journal) {
	for _, s := range sysctls() {
		if err := os.WriteFile(s.path, []byte(s.value), 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
			j.Warn("set "+s.path, err)
		}
	}
}

// Settle writes the guest's settings and the files in /etc that name it.
func Settle(cfg guestapi.BootConfig, j *facts.Journal) {
	e := etc{root: "/", cfg: cfg}
	j.Warn("write /etc/hostname", e.hostname())
	j.Warn("write /etc/hosts", e.hosts())
	j.Warn("write /etc/machine-id", e.machineID())
	j.Warn("write /etc/localtime", e.localtime())
}

// Network brings the interface up and names the DNS servers.
func Network(cfg guestapi.BootConfig, j *facts.Journal) error {
	if err := guestnet.Up(cfg.Net); err != nil {
		j.Warn("bring up the network", err)
		return err
	}
	if cfg.Net != nil {
		e := etc{root: "/", cfg: cfg}
		j.Warn("write /etc/resolv.conf", e.resolvConf())
	}
	j.Phase("network up")
	return nil
}

// clockSlack is how far ahead of the estimate the guest's clock may be: the estimate is from before the VMM started. A
// clock that is behind it is wrong for certain, if only because an emulated RTC counts whole seconds.
const clockSlack = 5 * time.Minute

// SetClock sets the clock to now, unless it is slightly ahead of that already. A now without a date is ignored.
func SetClock(now time.Time) error {
	if now.Year() < 2000 {
		return nil
	}
	if ahead := time.Since(now); ahead >= 0 && ahead < clockSlack {
		return nil
	}
	tv := unix.NsecToTimeval(now.UnixNano())
	return unix.Settimeofday(&tv)
}

// setLimits sets the limits that every process of the guest inherits: as many files as container engines allow, no core dumps.
func setLimits() error {
	return errors.Join(
		unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1 << 16, Max: 1 << 20}),
		unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{Cur: 0, Max: unix.RLIM_INFINITY}),
	)
}

type sysctl struct{ path, value string }

// sysctls are the settings that databases, file watchers and container engines commonly ask their users to make.
func sysctls() []sysctl {
	return []sysctl{
		{"/proc/sys/vm/max_map_count", "262144"},
		{"/proc/sys/fs/inotify/max_user_watches", "524288"},
		{"/proc/sys/fs/inotify/max_user_instances", "1024"},
		{"/proc/sys/net/ipv4/ip_forward", "1"},
		{"/proc/sys/net/ipv4/ping_group_range", "0 2147483647"},
	}
}

// etc writes the files that name this VM. It respects what an image brings: a file is written when it is missing, is
// empty or is ours from an earlier boot; the exceptions are said where they are made. root is "/" but in tests.
type etc struct {
	root string
	cfg  guestapi.BootConfig
}

func (e etc) path(name string) string { return filepath.Join(e.root, "etc", name) }

// hostname replaces /etc/hostname whatever it says: an image is cloned for many VMs, so the name in it is nobody's, and
// an init such as systemd sets the host name from there.
func (e etc) hostname() error { return writeIfChanged(e.path("hostname"), e.cfg.Name+"\n") }

const hostsMark = "\t# banger"

// hosts makes sure that the VM's own name resolves, which sudo and others need. Other lines stay.
func (e etc) hosts() error {
	old, err := os.ReadFile(e.path("hosts"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var b strings.Builder
	if len(strings.TrimSpace(string(old))) == 0 {
		old = []byte("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	}
	for line := range strings.Lines(string(old)) {
		if strings.HasSuffix(strings.TrimSuffix(line, "\n"), hostsMark) {
			continue
		}
		b.WriteString(strings.TrimSuffix(line, "\n") + "\n")
	}
	b.WriteString("127.0.1.1\t" + e.cfg.Name + hostsMark + "\n")
	return writeIfChanged(e.path("hosts"), b.String())
}

// machineID fills in machine-id(5) where the image left it open.
func (e etc) machineID() error {
	old, err := os.ReadFile(e.path("machine-id"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if s := strings.TrimSpace(string(old)); e.cfg.MachineID == "" || s != "" && s != "uninitialized" {
		return nil
	}
	return writeIfChanged(e.path("machine-id"), e.cfg.MachineID+"\n")
}

// localtime sets the time zone where the image has none and knows the one that is asked for.
func (e etc) localtime() error {
	zone := filepath.Join("/usr/share/zoneinfo", filepath.Clean("/"+e.cfg.Timezone))
	if e.cfg.Timezone == "" {
		return nil
	}
	if _, err := os.Stat(filepath.Join(e.root, zone)); err != nil {
		return nil // an image without zone data keeps UTC
	}
	if err := os.Symlink(zone, e.path("localtime")); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// resolvConf names the DNS servers. An image cannot know these, and often holds those of the host it was built on, so a
// resolv.conf of the image's is put out of effect: a bind mount covers it, the file itself stays as it is.
func (e etc) resolvConf() error {
	text := guestnet.ResolvConf(e.cfg.Net)
	if e.cfg.Init != guestapi.InitAgent {
		// systemd-resolved takes servers from here, if the image has it; others ignore it.
		drop := filepath.Join(e.root, "run/systemd/resolved.conf.d/banger.conf")
		servers := "[Resolve]\nDNS=" + strings.Join(e.cfg.Net.DNS, " ") + "\n"
		if err := writeIfChanged(drop, servers); err != nil {
			return err
		}
	}
	path := e.path("resolv.conf")
	if target, err := os.Readlink(path); err == nil {
		return writeIfChanged(e.follow(target), text)
	}
	old, err := os.ReadFile(path)
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	case strings.HasPrefix(string(old), guestnet.Mark), !strings.Contains(string(old), "nameserver"):
		return writeIfChanged(path, text)
	}
	cover := filepath.Join(e.root, "run/banger/resolv.conf")
	if err := writeIfChanged(cover, text); err != nil {
		return err
	}
	return unix.Mount(cover, path, "", unix.MS_BIND, "")
}

// follow is where a symbolic link in /etc leads, kept below root. The target of a fresh image's link is often missing,
// with its directory: whoever should make it has not run.
func (e etc) follow(target string) string {
	if !filepath.IsAbs(target) {
		target = filepath.Join("/etc", target)
	}
	return filepath.Join(e.root, filepath.Clean(target))
}

// writeIfChanged writes text to path unless that is what it holds. A boot that changes nothing writes nothing.
func writeIfChanged(path, text string) error {
	if old, err := os.ReadFile(path); err == nil && string(old) == text {
		return nil
	}
	err := os.WriteFile(path, []byte(text), 0o644)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		err = os.WriteFile(path, []byte(text), 0o644)
	}
	return err
}
