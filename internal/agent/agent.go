// Package agent is banger's one program in the guest, put together: it boots the guest or lives beside another init, and
// answers the host on the control channel.
//
// It has two roles. As /init of the initramfs it boots ([boot]) and then, if the configuration says init = "agent", stays
// PID 1. Otherwise it starts a copy of itself in the role "serve" and becomes the image's own init. Both roles answer the
// same methods; they differ in who powers off and who brings up the network: whoever serves.
//
// A milestone is something to wait for, that has come or is known not to come. The channel is served from the moment the
// root is entered; calls other than the hello wait until the guest is usable, so that no command meets it half made.
package agent

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/agent/boot"
	"github.com/banger-vm/banger/internal/agent/call"
	"github.com/banger-vm/banger/internal/agent/control"
	"github.com/banger-vm/banger/internal/agent/facts"
	"github.com/banger-vm/banger/internal/agent/guestnet"
	"github.com/banger-vm/banger/internal/agent/proc"
	"github.com/banger-vm/banger/internal/agent/run"
	"github.com/banger-vm/banger/internal/agent/session"
	"github.com/banger-vm/banger/internal/agent/sshserver"
	"github.com/banger-vm/banger/internal/errkind"
)

// Agent is the state of the running agent.
type Agent struct {
	boot     atomic.Pointer[guestapi.BootConfig] // a template's is replaced once
	version  string
	log      *slog.Logger
	journal  *facts.Journal
	identity identity
	sup      *proc.Supervisor

	commands  *run.Service // every command in the guest, SSH's too
	sessions  *session.Manager
	sshServer *sshserver.Server
	resolver  *net.Resolver

	root    *milestone // the guest's own root is entered
	usable  *milestone // commands may run: disks have their size, the network is up if it ever will be
	network *milestone
	ssh     *milestone
	booted  *milestone // nothing of the boot is left to do

	powerOff sync.Once
	becoming sync.Mutex // a guest becomes a VM once
}

// Where sessions are: on the guest's root disk, and in its tree of cgroups.
const (
	sessionsDir   = "/var/lib/banger/sessions"
	sessionsGroup = "/sys/fs/cgroup/banger.sessions"
)

func newAgent(cfg guestapi.BootConfig, version string, j *facts.Journal, log *slog.Logger) *Agent {
	a := &Agent{
		version: version, log: log, journal: j, sup: proc.New(),
		identity: identity{keys: cfg.AuthorizedKeys, hostKey: cfg.HostKey, env: cfg.Env},
		resolver: &net.Resolver{PreferGo: true},
		root:     newMilestone(), usable: newMilestone(), network: newMilestone(), ssh: newMilestone(), booted: newMilestone(),
	}
	a.boot.Store(&cfg)
	a.commands = run.New(a.sup, a.identity.environ)
	a.sessions = session.New(session.Config{Dir: sessionsDir, Cgroup: sessionsGroup, Run: a.commands, Log: log})
	a.sshServer = sshserver.New(sshserver.Config{
		HostKey: a.identity.hostKeyPEM, AuthorizedKeys: a.identity.authorizedKeys, Run: a.commands, Log: log,
	})
	return a
}

// milestone is decided once: reached or not.
type milestone struct {
	once    sync.Once
	decided chan struct{}
	reached bool // valid once decided is closed
}

func newMilestone() *milestone { return &milestone{decided: make(chan struct{})} }

func (m *milestone) decide(reached bool) {
	m.once.Do(func() {
		m.reached = reached
		close(m.decided)
	})
}

// wait returns once m is decided, or with ctx's error.
func (m *milestone) wait(ctx context.Context) error {
	select {
	case <-m.decided:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (m *milestone) isReached() bool {
	select {
	case <-m.decided:
		return m.reached
	default:
		return false
	}
}

// controlWait is how long the control channel may take to appear: a port's driver finds it by messages with the VMM.
const controlWait = 5 * time.Second

// openControl opens the control channel, with a short back-off while it is not there yet.
func openControl() (control.Channel, error) {
	deadline := time.Now().Add(controlWait)
	for pause := 500 * time.Microsecond; ; pause = min(2*pause, 20*time.Millisecond) {
		c, err := control.Open()
		if err == nil || !errkind.Is(err, api.KindNotFound) || time.Now().After(deadline) {
			return c, err
		}
		time.Sleep(pause)
	}
}

// serve answers the host until ctx ends. It opens the channel at once and looks at the guest's root only when that is there.
func (a *Agent) serve(ctx context.Context) error {
	channel, err := openControl()
	if err != nil {
		return err
	}
	if err := a.root.wait(ctx); err != nil {
		return err
	}
	handlers := a.handlers()
	for method, h := range handlers {
		if method == guestapi.MethodHello || method == guestapi.MethodBecome {
			continue
		}
		handlers[method] = func(ctx context.Context, c *call.Call) (any, error) {
			if err := a.usable.wait(ctx); err != nil {
				return nil, err
			}
			return h(ctx, c)
		}
	}
	return channel.Serve(ctx, handlers, a.log)
}

// config is what the guest is.
func (a *Agent) config() guestapi.BootConfig { return *a.boot.Load() }

// begin does what is left of a boot once the root is entered.
func (a *Agent) begin(ctx context.Context) {
	a.root.decide(true)
	a.journal.Phase("ready")
	cfg := a.config()
	if !cfg.Template {
		a.journal.Warn("set the clock", boot.SetClock(cfg.Time.Add(facts.SinceBoot())))
		a.settle()
	}
	go a.listenSSH(ctx) // whoever comes waits for what is sent from here on, and meets the identity of then
	boot.Tune(a.journal)
	boot.LoadLate(cfg, a.journal)
	if cfg.Template {
		a.rehearse(ctx, cfg)
	}
	a.booted.decide(true)
}

// rehearse does in a template what every VM that begins with it would have to do first: it brings the links up, and has a command's
// files read.
func (a *Agent) rehearse(ctx context.Context, cfg guestapi.BootConfig) {
	a.journal.Warn("bring up the links", guestnet.Up(cfg.Net))
	_, err := a.sup.Output(ctx, proc.Spec{Argv: []string{"/bin/sh", "-c", "true"}, Dir: "/"})
	a.journal.Warn("run a command", err)
}

// settle makes the guest the one that its configuration tells of.
func (a *Agent) settle() {
	cfg := a.config()
	boot.Prepare(cfg, a.journal)
	boot.Grow(cfg, a.journal)
	a.network.decide(boot.Network(cfg, a.journal) == nil && cfg.Net != nil)
	a.usable.decide(true)
	boot.Settle(cfg, a.journal)
	a.journal.Phase("settled")
}

// identity is what the host may replace in a running guest.
type identity struct {
	mu      sync.Mutex // calls read while agent.configure replaces
	keys    []string
	hostKey string
	env     []string
}

func (i *identity) replace(n guestapi.Identity) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if n.AuthorizedKeys != nil {
		i.keys = n.AuthorizedKeys
	}
	if n.HostKey != "" {
		i.hostKey = n.HostKey
	}
	if n.Env != nil {
		i.env = n.Env
	}
}

func (i *identity) authorizedKeys() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.keys
}

func (i *identity) hostKeyPEM() []byte {
	i.mu.Lock()
	defer i.mu.Unlock()
	return []byte(i.hostKey)
}

func (i *identity) environ() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.env
}
