package host

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

func terminate(p *os.Process) error { return p.Signal(syscall.SIGTERM) }

// signalGroup signals the process group that p leads.
func signalGroup(p *os.Process, sig syscall.Signal) error { return syscall.Kill(-p.Pid, sig) }

// StartTime returns field 22 of /proc/PID/stat: when the process started, in clock ticks since boot (proc_pid_stat(5)).
// Together with the pid it identifies a process. A pid that no process has, and a zombie, are of kind not-found.
func StartTime(pid int) (uint64, error) {
	f, err := statFields(pid)
	if err != nil {
		return 0, err
	}
	n, err := f.number(22)
	return uint64(n), err
}

// stat is the fields of /proc/PID/stat from the third on, the state.
type stat [][]byte

// statFields reads /proc/PID/stat. A pid that no process has, and a zombie, are of kind not-found.
func statFields(pid int) (stat, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return nil, errkind.New(api.KindNotFound, "no process %d", pid)
	}
	if err != nil {
		return nil, err
	}
	// The command name, field 2, is in parentheses and may contain anything; fields are counted after the last one.
	f := stat(bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(f) > 0 && (f[0][0] == 'Z' || f[0][0] == 'X') {
		return nil, errkind.New(api.KindNotFound, "process %d has ended", pid)
	}
	return f, nil
}

// number returns a field by its number in proc_pid_stat(5).
func (s stat) number(field int) (int64, error) {
	const first = 3
	if field-first >= len(s) {
		return 0, fmt.Errorf("/proc/PID/stat has %d fields, not %d", len(s)+first-1, field)
	}
	return strconv.ParseInt(string(s[field-first]), 10, 64)
}

// Detached starts argv as a process of its own: new session, no controlling terminal, standard streams as given (nil is
// /dev/null), files as its descriptors 3, 4, …, no other descriptor inherited. It returns once the program has been executed; the process outlives the caller.
// The caller must Wait for it or have it reaped otherwise.
func Detached(argv, env []string, dir string, stdout, stderr *os.File, files ...*os.File) (*os.Process, error) {
	path, err := LookPath(argv[0])
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(path, argv[1:]...)
	cmd.Dir = dir
	cmd.Env = env
	if stdout != nil {
		cmd.Stdout = stdout
	}
	if stderr != nil {
		cmd.Stderr = stderr
	}
	cmd.ExtraFiles = files
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", argv[0], err)
	}
	return cmd.Process, nil
}
