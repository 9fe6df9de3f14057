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

// Detached is a program that outlives the caller: it gets a new session, no controlling terminal, and no descriptor but its
// standard streams.
type Detached struct {
	Argv   []string
	Env    []string // nil: the caller's
	Dir    string
	Stdout *os.File // nil: /dev/null; so is standard input
	Stderr *os.File // nil: /dev/null
	Group  Cgroup   // where it is born, exists; empty: where the caller is
}

// Start returns once the program has been executed. The caller must Wait for it or have it reaped otherwise.
func (d Detached) Start() (*os.Process, error) {
	path, err := LookPath(d.Argv[0])
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(path, d.Argv[1:]...)
	cmd.Dir, cmd.Env = d.Dir, d.Env
	if d.Stdout != nil {
		cmd.Stdout = d.Stdout
	}
	if d.Stderr != nil {
		cmd.Stderr = d.Stderr
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if d.Group != "" {
		group, err := os.Open(string(d.Group))
		if err != nil {
			return nil, err
		}
		defer group.Close()
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(group.Fd()) // CLONE_INTO_CGROUP of clone(2)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", d.Argv[0], err)
	}
	return cmd.Process, nil
}
