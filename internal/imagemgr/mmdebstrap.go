package imagemgr

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/host"
	"github.com/banger-vm/banger/internal/opstate"
	"golang.org/x/sys/unix"
)

// bootstrap is one run of mmdebstrap.
type bootstrap struct {
	recipe
	mode   bootstrapMode
	tmp    string // directory for its work, removed by the caller
	log    string // file that receives all it says
	report opstate.Reporter
}

// bootstrapMode is how mmdebstrap becomes able to run programs in the new root.
type bootstrapMode string

const (
	modeRoot    bootstrapMode = "root"    // chroot and mounts with the caller's own privileges
	modeUnshare bootstrapMode = "unshare" // in a user namespace, with the caller's subordinate ids
)

// subordinateIDs is how many user and group ids a Debian system needs: 0 to 65,535.
const subordinateIDs = 65536

// chooseMode finds out what this host and user can do.
func chooseMode() (bootstrapMode, error) {
	var data [2]unix.CapUserData
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return "", fmt.Errorf("read capabilities: %w", err)
	}
	const need = 1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_SYS_CHROOT | 1<<unix.CAP_CHOWN
	if os.Geteuid() == 0 && data[0].Effective&need == need { // mmdebstrap asks for the user id, the kernel for the rest
		return modeRoot, nil
	}
	if _, err := host.LookPath("newuidmap"); err != nil {
		return "", errkind.WithHint(errkind.New(api.KindUnavailable, "building an image as an ordinary user needs newuidmap"),
			"install the package uidmap, or run as root")
	}
	u, err := user.Current()
	if err != nil {
		return "", err
	}
	for _, file := range []string{"/etc/subuid", "/etc/subgid"} {
		if !hasSubordinates(file, u) {
			return "", errkind.WithHint(
				errkind.New(api.KindPrecondition, "user %q has no %d subordinate ids in %s", u.Username, subordinateIDs, file),
				"as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 %s", u.Username)
		}
	}
	for _, s := range []string{"/proc/sys/kernel/unprivileged_userns_clone", "/proc/sys/user/max_user_namespaces"} {
		if b, err := os.ReadFile(s); err == nil && strings.TrimSpace(string(b)) == "0" {
			return "", errkind.WithHint(errkind.New(api.KindPrecondition, "this host lets no ordinary user make user namespaces"),
				"as root: set %s to more than 0, or run as root", s)
		}
	}
	return modeUnshare, nil
}

// hasSubordinates reports whether a line of subuid(5) gives u enough ids.
func hasSubordinates(file string, u *user.User) bool {
	b, err := os.ReadFile(file)
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) == 3 && (f[0] == u.Username || f[0] == u.Uid) {
			if n, err := strconv.Atoi(f[2]); err == nil && n >= subordinateIDs {
				return true
			}
		}
	}
	return false
}

// excluded is what dpkg leaves out, now and in the guest: 40 MB that nobody reads in a disposable machine. Licences stay.
var excluded = []string{
	"path-exclude=/usr/share/man/*", "path-exclude=/usr/share/info/*", "path-exclude=/usr/share/lintian/*",
	"path-exclude=/usr/share/doc/*", "path-include=/usr/share/doc/*/copyright",
	"path-exclude=/usr/share/locale/*", "path-include=/usr/share/locale/locale.alias",
}

// argv is the command line. As root mmdebstrap mounts in the namespace that it is started in, and leaves that behind when
// it is killed: so it is given one of its own, which ends with it.
func (b bootstrap) argv() []string {
	var argv []string
	if b.mode == modeRoot {
		argv = []string{"unshare", "--mount", "--propagation", "private", "--"}
	}
	argv = append(argv,
		"mmdebstrap", "--verbose", "--mode="+string(b.mode), "--variant="+b.variant, "--format=tar",
		"--include="+strings.Join(b.packages, ","),
		`--aptopt=APT::Install-Recommends "false"`, `--aptopt=Acquire::Languages "none"`,
	)
	for _, x := range excluded {
		argv = append(argv, "--dpkgopt="+x)
	}
	return slices.Concat(argv, []string{b.suite, "-"}, b.sources)
}

// runMmdebstrap runs mmdebstrap with the root filesystem's tar stream on w. It verifies what it downloads with apt's keys.
// It expects signals to reach its children, too, as a terminal's do, and itself hangs up its whole process group when its
// output is closed: so it has a group of its own. When ctx ends it is told to end, and removes its work. When the daemon
// dies it goes on until it next says something; [Manager.Sweep] ends it before.
func runMmdebstrap(ctx context.Context, b bootstrap, w *os.File) error {
	if _, err := host.LookPath("mmdebstrap"); err != nil {
		return errkind.WithHint(err, "install mmdebstrap; on Debian, `make deps` installs everything banger needs")
	}
	log, err := os.OpenFile(b.log, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	said := &bootstrapLog{report: b.report, log: log}
	err = host.Run(ctx, host.Command{
		Argv: b.argv(), Dir: "/", Stdout: w, Stderr: said, Group: true,
		Env: []string{"TMPDIR=" + b.tmp, "LC_ALL=C.UTF-8", "PATH=" + os.Getenv("PATH") + ":/usr/sbin:/sbin"},
	})
	var exit *host.ExitError
	if errors.As(err, &exit) {
		exit.Argv, exit.Output = []string{"mmdebstrap"}, said.cause
		return errkind.WithHint(errkind.Wrap(api.KindUnavailable, err), "everything that mmdebstrap said is in %s", b.log)
	}
	return err
}

// bootstrapLog turns what mmdebstrap, apt and dpkg say into stages and progress, and copies it to a log.
type bootstrapLog struct {
	report      opstate.Reporter
	log         io.Writer
	line        []byte
	stage       string
	done, total int64
	cause       string // the first error
}

// stages maps what mmdebstrap announces to our stages; other announcements begin none.
var stages = map[string]string{
	"running apt-get update...":                          "fetch package lists",
	"downloading packages with apt...":                   downloadStage,
	"extracting archives...":                             "unpack packages",
	"installing essential packages...":                   "configure base packages",
	"installing remaining packages inside the chroot...": "install packages",
	"cleaning package lists and apt cache...":            "clean up",
}

const downloadStage = "download packages"

var newlyInstalled = regexp.MustCompile(`, (\d+) newly installed`) // apt-get(8)'s summary

func (l *bootstrapLog) Write(p []byte) (int, error) {
	l.line = append(l.line, p...)
	for {
		i := bytes.IndexAny(l.line, "\r\n")
		if i < 0 {
			break
		}
		l.take(string(l.line[:i]))
		l.line = l.line[i+1:]
	}
	l.line = slices.Clone(l.line)
	if _, err := l.log.Write(p); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (l *bootstrapLog) take(line string) {
	if msg, ok := strings.CutPrefix(line, "I: "); ok {
		if s := stages[msg]; s != "" {
			l.stage, l.done = s, 0
			l.report.Stage(s)
		}
		return
	}
	if msg, ok := strings.CutPrefix(line, "E: "); ok && l.cause == "" {
		l.cause = msg
		return
	}
	if f := newlyInstalled.FindStringSubmatch(line); f != nil {
		l.total, _ = strconv.ParseInt(f[1], 10, 64)
		l.done = 0
		return
	}
	step := "Setting up "
	if l.stage == downloadStage {
		step = "Get:"
	}
	if strings.HasPrefix(line, step) && l.total > 0 {
		l.done = min(l.done+1, l.total)
		l.report.Progress(l.done, l.total, "packages")
	}
}
