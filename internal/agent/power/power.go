// Package power ends the guest without losing anything: processes, then file systems, then the machine.
package power

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/agent/mounts"
)

// grace is what processes get between SIGTERM and SIGKILL, and killed is how long these then may take to disappear.
const (
	grace  = 3 * time.Second
	killed = time.Second
)

// initGrace is what the image's own init gets to shut down before the agent does it.
const initGrace = 60 * time.Second

// Quiesce ends every other process and brings the file systems to rest. What it returns is for the log: power-off goes on.
func Quiesce(ctx context.Context) error {
	unix.Kill(-1, unix.SIGTERM)
	unix.Kill(-1, unix.SIGCONT)
	left := processes("/proc")
	for _, p := range left {
		if p.leadsTerminal { // an interactive shell ignores SIGTERM
			unix.Kill(p.pid, unix.SIGHUP)
		}
	}
	if !waitGone(ctx, left, grace) {
		unix.Kill(-1, unix.SIGKILL)
		waitGone(ctx, processes("/proc"), killed)
	}
	unix.Sync()
	return mounts.TakeDown()
}

// waitGone waits until the processes of list have ended. Those started meanwhile are met by SIGKILL, or by the end of the
// machine.
func waitGone(ctx context.Context, list []process, limit time.Duration) bool {
	deadline := time.Now().Add(limit)
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		list = slices.DeleteFunc(list, func(p process) bool { return errors.Is(unix.Kill(p.pid, 0), unix.ESRCH) })
		if len(list) == 0 {
			return true
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return false
		}
		time.Sleep(pause)
	}
}

// process is one that a power-off has to end.
type process struct {
	pid           int
	leadsTerminal bool // leader of a session that has a terminal
}

// kthreadd is the parent of all kernel threads, which cannot be ended.
const kthreadd = "2"

// processes lists the processes of the guest without PID 1, the agent and kernel threads.
func processes(proc string) []process {
	entries, _ := os.ReadDir(proc)
	var list []process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == 1 || pid == os.Getpid() || e.Name() == kthreadd {
			continue
		}
		b, err := os.ReadFile(filepath.Join(proc, e.Name(), "stat"))
		if err != nil {
			continue // ended
		}
		// After the command's name in parentheses: state, parent, group, session, terminal (proc_pid_stat(5)).
		stat := string(b)
		f := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
		if len(f) < 5 || f[1] == kthreadd {
			continue
		}
		list = append(list, process{pid: pid, leadsTerminal: f[3] == e.Name() && f[4] != "0"})
	}
	return list
}

// Off ends the machine. It does not return.
//
// Where the platform has an ACPI soft-off, that is used: the VMM then sees a shutdown. Without one the kernel would only
// halt and the VMM run on (kernel_can_power_off in kernel/reboot.c), so the machine restarts instead, which every VMM of ours is
// started to take as its end (QEMU's -no-reboot; Firecracker always), and says on the console that a power-off was meant.
func Off(log *slog.Logger) {
	off, how := restart, "restart"
	if dsdt, err := os.ReadFile("/sys/firmware/acpi/tables/DSDT"); err == nil && hasSoftOff(dsdt) {
		off, how = func() error { return unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF) }, "power-off"
	}
	log.Debug("ending the machine", "by", how)
	for {
		if err := off(); err != nil {
			log.Error("end the machine", "by", how, "err", err)
		}
		off, how = restart, "restart"
		time.Sleep(100 * time.Millisecond)
	}
}

func restart() error {
	command, err := unix.BytePtrFromString(guestapi.PowerOffRestart)
	if err != nil {
		return err
	}
	_, _, errno := unix.Syscall6(unix.SYS_REBOOT, unix.LINUX_REBOOT_MAGIC1, unix.LINUX_REBOOT_MAGIC2, unix.LINUX_REBOOT_CMD_RESTART2,
		uintptr(unsafe.Pointer(command)), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// hasSoftOff reports whether the ACPI differentiated system description table defines the sleep state S5 (ACPI 6.5, 7.4.2).
func hasSoftOff(dsdt []byte) bool { return bytes.Contains(dsdt, []byte("_S5_")) }

// OffByInit asks the image's own init to shut down. If the guest still runs after a while, the agent ends it itself.
func OffByInit(ctx context.Context, log *slog.Logger) error {
	comm, err := os.ReadFile("/proc/1/comm")
	if err != nil {
		return err
	}
	name := strings.TrimSpace(string(comm))
	if err := askInit(name); err != nil {
		log.Warn("ask init to power off", "init", name, "err", err)
		return Quiesce(ctx)
	}
	select {
	case <-ctx.Done():
	case <-time.After(initGrace):
		log.Warn("init did not power off in time", "init", name)
	}
	return Quiesce(context.WithoutCancel(ctx))
}

// askInit uses the way of each init: systemd takes SIGRTMIN+4 (systemd(1), glibc's SIGRTMIN is 34), sysvinit a request for
// runlevel 0 in its pipe (initreq.h), BusyBox SIGUSR2 (init/init.c).
func askInit(name string) error {
	if name == "systemd" {
		return unix.Kill(1, unix.Signal(34+4))
	}
	for _, pipe := range []string{"/run/initctl", "/dev/initctl"} {
		if info, err := os.Stat(pipe); err == nil && info.Mode()&os.ModeNamedPipe != 0 {
			return writeInitctl(pipe)
		}
	}
	return unix.Kill(1, unix.SIGUSR2)
}

func writeInitctl(pipe string) error {
	const (
		magic       = 0x03091969
		cmdRunlevel = 1
		requestLen  = 384
	)
	req := make([]byte, requestLen)
	binary.NativeEndian.PutUint32(req[0:], magic)
	binary.NativeEndian.PutUint32(req[4:], cmdRunlevel)
	binary.NativeEndian.PutUint32(req[8:], '0')
	f, err := os.OpenFile(pipe, os.O_WRONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.Write(req)
	return err
}
