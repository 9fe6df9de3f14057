package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/agent/boot"
	"github.com/banger-vm/banger/internal/agent/facts"
	"github.com/banger-vm/banger/internal/agent/power"
)

// Main runs the agent in the role that args (with the program's name first) and the process id say, and returns the exit
// status. In PID 1 it does not return.
func Main(args []string, version string) int {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	switch {
	case len(args) == 2 && args[1] == "version":
		fmt.Println("banger-agent", version)
		return 0
	case len(args) == 2 && args[1] == roleServe:
		if err := serveBesideInit(context.Background(), version, log); err != nil {
			log.Error("banger-agent serve", "err", err)
			return 1
		}
		return 0
	case os.Getpid() == 1:
		err := runInit(context.Background(), version, log)
		boot.Fail(err)
		power.Off(log)
	}
	fmt.Fprintln(os.Stderr, "banger-agent runs inside banger's virtual machines: as PID 1, or as `banger-agent version`")
	return 64
}

// runInit boots the guest as PID 1. It returns only when that failed.
func runInit(ctx context.Context, version string, log *slog.Logger) error {
	j := facts.NewJournal(nil, nil)
	cfg, err := boot.Load(j)
	if err != nil {
		return err
	}
	if err := boot.LoadModules(cfg, j); err != nil {
		return err
	}
	if cfg.Init != guestapi.InitAgent {
		if err := boot.Enter(cfg, j); err != nil {
			return err
		}
		return becomeInit(cfg, j)
	}
	a := newAgent(cfg, version, j, log)
	ended := make(chan error, 1)
	go func() { ended <- a.serve(ctx) }()
	if err := boot.Enter(cfg, j); err != nil {
		return err
	}
	go a.begin(ctx)
	go a.powerOffOnSignal(ctx)
	go a.sup.Run(ctx)
	return &boot.StepError{Step: "serve the control channel", Err: <-ended}
}

// powerOffOnSignal makes the usual requests to PID 1 (from kill, reboot tools, Ctrl-Alt-Del, power failure) an orderly end. It
// also keeps Go's default from ending PID 1, which would panic the kernel.
func (a *Agent) powerOffOnSignal(ctx context.Context) {
	requests := make(chan os.Signal, 1)
	signal.Notify(requests, unix.SIGTERM, unix.SIGINT, unix.SIGPWR, unix.SIGUSR1, unix.SIGUSR2)
	// Taken and dropped, not ignored: that would be inherited by every process of the guest.
	signal.Notify(make(chan os.Signal, 1), unix.SIGHUP, unix.SIGQUIT, unix.SIGPIPE)
	<-requests
	a.end(ctx, func() {})
}

// roleServe is the role beside the image's own init, and handOverFD the pipe on which it learns the state of the boot.
const (
	roleServe  = "serve"
	handOverFD = 3
)

// handOver is the state of the boot.
type handOver struct {
	Config   guestapi.BootConfig
	Phases   []guestapi.Phase
	Warnings []string
}

// becomeInit starts the agent that serves, and executes the image's init in this process.
func becomeInit(cfg guestapi.BootConfig, j *facts.Journal) error {
	path := string(cfg.Init)
	if err := unix.Access(path, unix.X_OK); err != nil {
		return &boot.StepError{Step: "start init", Err: fmt.Errorf("%q of the image: %w", path, err)}
	}
	if err := startServing(cfg, j); err != nil {
		return &boot.StepError{Step: "start the agent beside init", Err: err}
	}
	env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=linux"} // as the kernel gives, and a PATH
	err := unix.Exec(path, []string{path}, env)
	return &boot.StepError{Step: "execute " + path, Err: err}
}

// startServing starts the agent's copy. Its file is the one this process runs from, which lives as long as somebody runs it,
// although the initramfs is gone. The @ in its name is systemd's sign for processes to spare in its last round
// of killing, the agent must outlive (systemd, "Storage Daemons for the Root File System").
func startServing(cfg guestapi.BootConfig, j *facts.Journal) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	defer w.Close()
	phases, warnings := j.Read()
	state, err := json.Marshal(handOver{Config: cfg, Phases: phases, Warnings: warnings})
	if err != nil {
		return err
	}
	p, err := os.StartProcess("/proc/self/exe", []string{"@banger-agent", roleServe}, &os.ProcAttr{
		Dir: "/", Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"},
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr, r},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return err
	}
	if _, err := w.Write(state); err != nil {
		return err
	}
	return p.Release()
}

// serveBesideInit is the role of the copy.
func serveBesideInit(ctx context.Context, version string, log *slog.Logger) error {
	pipe := os.NewFile(handOverFD, "boot state")
	if pipe == nil {
		return errors.New("the role serve is for the agent's own use")
	}
	var state handOver
	err := json.NewDecoder(pipe).Decode(&state)
	pipe.Close()
	if err != nil {
		return fmt.Errorf("read the boot's state: %w", err)
	}
	j := facts.NewJournal(state.Phases, state.Warnings)
	j.Warn("leave init's control group", ownCgroup())
	a := newAgent(state.Config, version, j, log)
	signal.Notify(make(chan os.Signal, 1), unix.SIGHUP, unix.SIGTERM, unix.SIGINT, unix.SIGPIPE)
	go a.begin(ctx)
	return a.serve(ctx)
}

// ownCgroup puts the agent where systemd does not look for processes of its own: everything in the root group moves to
// init.scope when it starts.
func ownCgroup() error {
	const dir = "/sys/fs/cgroup/banger"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(dir+"/cgroup.procs", []byte("0"), 0)
}
