package imagemgr

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/banger-vm/banger/internal/host"
	"github.com/banger-vm/banger/internal/preflight"
	"golang.org/x/sys/unix"
)

// Sweep removes what a crash left: staging directories, and published ones that were never committed or half deleted.
// It is called once, before anything is built. Errors are logged with the directory they concern; one does not stop
// the rest.
func (m *Manager) Sweep(ctx context.Context) error {
	images, err := m.cfg.Store.ListImages(ctx)
	if err != nil {
		return err
	}
	for _, img := range images { // the crash came after the row
		if err := removeFile(filepath.Join(m.dir(img.ID), uncommittedFile)); err != nil {
			m.cfg.Log.Error("left-over of an image build stays", "image", img.Name, "err", err)
		}
	}
	found, err := m.Leftovers(ctx)
	for _, p := range found {
		if p.Mend == nil {
			continue
		}
		m.cfg.Log.Info("removing left-over of an image build", "what", p.Detail)
		if _, err := p.Mend(ctx); err != nil {
			m.cfg.Log.Error("left-over of an image build stays", "what", p.Detail, "err", err)
		}
	}
	return err
}

// Leftovers finds what a crash left. It may be asked at any time: while an image is built or deleted it finds nothing. What is
// proven to be rubbish can be mended; a directory that might be an image of a store that was lost is for a person.
func (m *Manager) Leftovers(ctx context.Context) ([]preflight.Problem, error) {
	entries, err := os.ReadDir(m.cfg.Dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	images, err := m.cfg.Store.ListImages(ctx)
	if err != nil || !m.locks.Idle() {
		return nil, err // what is made after this has other names
	}
	known := map[string]bool{}
	for _, i := range images {
		known[string(i.ID)] = true
	}
	var found []preflight.Problem
	for _, e := range entries {
		if p, ok := leftover(filepath.Join(m.cfg.Dir, e.Name())); ok && !known[e.Name()] {
			found = append(found, p)
		}
	}
	return found, nil
}

// leftover tells whether dir, which no row names, is what a crash left.
func leftover(dir string) (preflight.Problem, bool) {
	p := preflight.Problem{Detail: "left of an image build: " + dir, Fix: "remove it: `banger doctor --fix`", Minor: true}
	has := func(name string) bool { _, err := os.Lstat(filepath.Join(dir, name)); return err == nil }
	switch {
	case !has("."): // an operation that has ended since took it away
		return p, false
	case strings.HasPrefix(filepath.Base(dir), stagingPrefix):
		p.Mend = func(ctx context.Context) (string, error) { return "removed", removeStage(ctx, dir) }
	case has(uncommittedFile):
		p.Mend = func(context.Context) (string, error) { return "removed", removeImageDir(dir) }
	case has(manifestFile):
		p.Detail = dir + " looks like an image, and no record names it"
		p.Fix = "see " + filepath.Join(dir, manifestFile) + " for what it is; if you do not need it, remove it by hand"
	default:
		return p, false
	}
	return p, true
}

// removeStage removes a staging directory and all that belongs to it, the processes that still work on it first. What
// mmdebstrap mounts is in a namespace of its own; if something is mounted here all the same, the directory stays.
func removeStage(ctx context.Context, stage string) error {
	mounted, err := mountedBelow(stage)
	if err != nil {
		return err
	}
	if mounted {
		return fmt.Errorf("%s stays: something is mounted below it", stage)
	}
	if err := endBootstrap(ctx, filepath.Join(stage, workDir)); err != nil {
		return err
	}
	if err := removeWork(ctx, stage); err != nil {
		return err // the stage stays, for it remembers what is to be removed
	}
	return os.RemoveAll(stage)
}

// endBootstrap kills what is left of a run of mmdebstrap with the work directory work: the group of the process that was
// started with it as TMPDIR, which no other process is.
func endBootstrap(ctx context.Context, work string) error {
	procs, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		return err
	}
	for _, path := range procs {
		env, err := os.ReadFile(path) // a process that ended meanwhile, and one that is not ours, cannot be read
		if err != nil || !slices.Contains(strings.Split(string(env), "\x00"), "TMPDIR="+work) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			return err
		}
		if err := killGroup(ctx, pid); err != nil {
			return fmt.Errorf("end process %d of an image build: %w", pid, err)
		}
	}
	return nil
}

// killGroup kills the process group that pid is in, unless it is our own, and waits for pid to end.
func killGroup(ctx context.Context, pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	group, err := unix.Getpgid(pid)
	if err != nil || group == unix.Getpgrp() {
		return err
	}
	if err := unix.Kill(-group, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	const turn = 100 // milliseconds
	for ended := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}; ctx.Err() == nil; {
		if n, err := unix.Poll(ended, turn); n > 0 || (err != nil && !errors.Is(err, unix.EINTR)) {
			return err
		}
	}
	return ctx.Err()
}

// Names of what a build makes besides the image's files.
const (
	workDir     = "work"          // in a staging directory: mmdebstrap's work directory
	workFile    = "work-dir"      // in a staging directory: the path of a work directory elsewhere
	foreignWork = "banger-build-" // begins the name of one elsewhere; the image's id follows
)

// newWorkDir makes a directory for mmdebstrap to work in. In a user namespace the caller's own directories cannot be
// entered, so there it is one in the system's directory for temporary files, which stage remembers.
func newWorkDir(stage string, mode bootstrapMode) (string, error) {
	if mode == modeRoot {
		dir := filepath.Join(stage, workDir)
		return dir, os.Mkdir(dir, 0o700)
	}
	dir := filepath.Join(os.TempDir(), foreignWork+strings.TrimPrefix(filepath.Base(stage), stagingPrefix))
	if err := host.WriteFile(filepath.Join(stage, workFile), []byte(dir), 0o600); err != nil {
		return "", err
	}
	if err := os.Mkdir(dir, 0o711); err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o711) // whatever the umask
}

// removeWork removes the work directory elsewhere that stage remembers, if there is one. What mmdebstrap left there when
// it was killed belongs to subordinate ids, and takes their powers to remove.
func removeWork(ctx context.Context, stage string) error {
	b, err := os.ReadFile(filepath.Join(stage, workFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	dir := string(b)
	if want := foreignWork + strings.TrimPrefix(filepath.Base(stage), stagingPrefix); filepath.Base(dir) != want {
		return fmt.Errorf("%s names %q, which is not its work directory", stage, dir)
	}
	if err := endBootstrap(ctx, dir); err != nil {
		return err
	}
	roots, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, r := range roots {
		if err := removeForeign(ctx, filepath.Join(dir, r.Name())); err != nil {
			return err
		}
	}
	return removeFile(dir)
}

// removeForeign removes a tree of the caller's own, or one whose top directory alone stands in one of the caller's own.
func removeForeign(ctx context.Context, path string) error {
	if os.RemoveAll(path) == nil {
		return nil
	}
	argv := []string{"mmdebstrap", "--unshare-helper", "find", path, "-xdev", "-mindepth", "1", "-delete"}
	if err := host.Run(ctx, host.Command{Argv: argv, Dir: "/"}); err != nil {
		return err
	}
	return removeFile(path)
}

// mountedBelow reports whether something is mounted below dir, as this process sees it.
func mountedBelow(dir string) (bool, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return false, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		// Field 5 is the mount point (proc_pid_mountinfo(5)), with white space and backslashes as octal numbers.
		fields := strings.Fields(lines.Text())
		if len(fields) > 4 && strings.HasPrefix(octal.Replace(fields[4]), dir+"/") {
			return true, nil
		}
	}
	return false, lines.Err()
}

var octal = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
