package fcproc

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/vmm"
	"github.com/banger-vm/banger/internal/vmm/vmmproc"
	"golang.org/x/sys/unix"
)

// The sockets of a machine in its run directory. Of a jailed machine's they are links into the jail, so that their paths stay short.
const (
	apiSocket   = "api.sock"
	agentSocket = "agent.sock"
)

// APISocket is where Firecracker serves its API.
func APISocket(runDir string) string { return filepath.Join(runDir, apiSocket) }

// AgentSocket is where Firecracker takes connections to the guest's vsock.
func AgentSocket(runDir string) string { return filepath.Join(runDir, agentSocket) }

// Cell is where the machine of one spec runs.
//
// Without a jailer that is the VM's run directory, and files have the paths that they have. A jail is a directory tree below the
// VM's own directory, so that files of the same file system can be linked into it; the jailer makes its devices, changes the root to
// it and becomes a user of the VM's own, whom the linked files are given to. A machine leaves a jail as root without a name for
// anything outside. Everything about a cell is derived from spec and tools; what is on disk says by itself whether there was a jail.
type Cell struct {
	tools Tools
	spec  vmm.Spec
}

// NewCell returns the cell of a spec. Nothing is made yet.
func NewCell(t Tools, s vmm.Spec) Cell { return Cell{tools: t, spec: s} }

func (c Cell) jailed() bool { return c.tools.Jailer != "" }

// jailDir is the base of all jails of a VM, of which there is one at a time.
func jailDir(dir string) string { return filepath.Join(dir, "jail") }

// root is the jail's root as the host sees it (docs/jailer.md of Firecracker: BASE/EXEC/ID/root).
func (c Cell) root() string {
	return filepath.Join(jailDir(c.spec.Dir), filepath.Base(c.tools.Firecracker), string(c.spec.ID), "root")
}

// firstUser is the first of the user ids that jailed machines have. Those from 0x70000000 to 0x7fffffff are given to nobody
// (systemd's UIDS-GIDS); a VM's id chooses one of the lower half.
const firstUser = 0x70000000

// user is the user and group id of a jailed machine. An id that is not hex, which banger's all are, gets the first.
func (c Cell) user() int {
	id := string(c.spec.ID)
	n, err := strconv.ParseUint(id[max(0, len(id)-7):], 16, 64)
	if err != nil {
		return firstUser
	}
	return firstUser + int(n&0x7ffffff)
}

// Open makes the cell. On error nothing is left.
func (c Cell) Open() error {
	if !c.jailed() {
		return nil
	}
	if err := c.openJail(); err != nil {
		return errors.Join(fmt.Errorf("make a jail: %w", err), CleanUp(c.spec.Dir, c.spec.RunDir))
	}
	return nil
}

func (c Cell) openJail() error {
	if err := os.MkdirAll(c.root(), 0o700); err != nil {
		return err
	}
	for _, name := range []string{apiSocket, agentSocket} {
		if err := os.Symlink(filepath.Join(c.root(), name), filepath.Join(c.spec.RunDir, name)); err != nil {
			return err
		}
	}
	log, err := os.OpenFile(filepath.Join(c.spec.Dir, vmm.VMMLog), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	log.Close()
	_, err = c.Bring(log.Name(), vmm.VMMLog, false)
	return err
}

// Bring lets the machine open the file at path, and returns the path that it has for the machine, called name in a jail. One that
// is to be read only belongs to others too and keeps its owner.
func (c Cell) Bring(path, name string, readOnly bool) (string, error) {
	if !c.jailed() {
		return path, nil
	}
	st, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	inside := filepath.Join(c.root(), name)
	if st.Mode().IsRegular() {
		err = link(path, inside)
	} else {
		err = copyNode(path, inside)
	}
	switch {
	case err != nil:
		return "", fmt.Errorf("bring %s into the jail: %w", path, err)
	case readOnly && st.Mode().IsRegular() && st.Mode().Perm()&0o004 == 0:
		return "", errkind.WithHint(errkind.New(api.KindPrecondition, "a jailed machine cannot read %s (its mode is %v)", path, st.Mode()),
			"let others read the file, or set jailer to off")
	case readOnly && st.Mode().IsRegular():
		return "/" + name, nil
	}
	return "/" + name, os.Chown(inside, c.user(), c.user())
}

func link(path, inside string) error {
	real, err := filepath.EvalSymlinks(path) // link(2) would link the link
	if err != nil {
		return err
	}
	err = os.Link(real, inside)
	if errors.Is(err, unix.EXDEV) {
		return errkind.WithHint(errkind.New(api.KindPrecondition, "it is on another file system than the VM's directory"),
			"keep it on the file system of banger's state, or set jailer to off")
	}
	return err
}

// copyNode makes a device node at inside for the device at path.
func copyNode(path, inside string) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return err
	}
	return unix.Mknod(inside, st.Mode&unix.S_IFMT|0o600, int(st.Rdev))
}

// Socket is the path that a socket of the run directory has for the machine, which makes it.
func (c Cell) Socket(path string) string {
	if c.jailed() {
		return "/" + filepath.Base(path)
	}
	return filepath.Base(path) // it runs in the run directory
}

// Argv is the command line that starts Firecracker in the cell.
func (c Cell) Argv() []string {
	args := []string{"--api-sock", c.Socket(APISocket(c.spec.RunDir)), "--level", "Warning", "--log-path"}
	id := string(c.spec.ID)
	if !c.jailed() {
		return append([]string{c.tools.Firecracker, "--id", id}, append(args, filepath.Join(c.spec.Dir, vmm.VMMLog))...)
	}
	user := strconv.Itoa(c.user())
	jail := []string{
		c.tools.Jailer, "--id", id, "--exec-file", c.tools.Firecracker, "--uid", user, "--gid", user,
		"--chroot-base-dir", jailDir(c.spec.Dir), "--",
	}
	return append(jail, append(args, "/"+vmm.VMMLog)...)
}

// Dir is where Firecracker is started.
func (c Cell) Dir() string { return c.spec.RunDir }

// Runs tells whether a command line is that of the machine of the VM id, wherever it runs.
func Runs(cmdline, id string) bool {
	args := strings.Split(cmdline, "\x00")
	for i, a := range args[:len(args)-1] {
		if (a == "--id" && args[i+1] == id || a == "--id="+id) && strings.Contains(cmdline, apiSocket) {
			return true
		}
	}
	return false
}

// CleanUp removes what the machine of a VM left in its directories but its logs. The files that were brought into a jail stay where they
// came from.
func CleanUp(dir, runDir string) error {
	return errors.Join(vmmproc.RemoveFiles(APISocket(runDir), AgentSocket(runDir)), removeJail(jailDir(dir)))
}

// removeJail removes the jails below base: directories at the depths that the jailer makes, and names of files in them.
func removeJail(base string) error {
	roots, err := filepath.Glob(filepath.Join(escape(base), "*", "*", "root"))
	if err != nil {
		return err
	}
	var errs []error
	for _, root := range roots {
		for _, dir := range []string{"dev/net", "dev", "run", ""} {
			errs = append(errs, removeDir(filepath.Join(root, dir)))
		}
		errs = append(errs, os.Remove(filepath.Dir(root)), os.Remove(filepath.Dir(filepath.Dir(root))))
	}
	return errors.Join(append(errs, vmmproc.RemoveFiles(base))...)
}

// removeDir removes a directory and the names in it. One that has another directory in it stays, with an error.
func removeDir(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if !e.IsDir() {
			errs = append(errs, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(append(errs, os.Remove(dir))...)
}

// escape makes a path a pattern that matches it alone.
func escape(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}
