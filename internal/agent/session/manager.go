package session

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/agent/call"
	"github.com/banger-vm/banger/internal/agent/proc"
	"github.com/banger-vm/banger/internal/agent/run"
	"github.com/banger-vm/banger/internal/errkind"
)

// Config is what a Manager works with.
type Config struct {
	Dir    string       // of the sessions, on the guest's disk
	Cgroup string       // below which sessions have cgroups, on a cgroup v2 file system; empty: they have none
	Run    *run.Service // knows what a command is
	Log    *slog.Logger
}

// Manager owns the guest's sessions. It looks at the disk with its first call, not before: the disk is mounted by then.
type Manager struct {
	cfg  Config
	load func() error

	mu       sync.Mutex          // names are taken while others look
	sessions map[string]*session // by id

	poweringOff atomic.Bool
}

// PowerOff says that the guest is about to end all processes: sessions that end from now on are lost, and none is started again.
func (m *Manager) PowerOff() { m.poweringOff.Store(true) }

// New returns a manager.
func New(cfg Config) *Manager {
	m := &Manager{cfg: cfg, sessions: map[string]*session{}}
	m.load = sync.OnceValue(m.readAll)
	return m
}

// Handlers returns the agent's methods that this package serves.
func (m *Manager) Handlers() map[string]call.Handler {
	all := map[string]call.Handler{
		guestapi.MethodSessionStart:  m.start,
		guestapi.MethodSessionList:   m.list,
		guestapi.MethodSessionGet:    on(m, func(_ context.Context, s *session, _ guestapi.SessionRef) (any, error) { return s.view(), nil }),
		guestapi.MethodSessionWait:   on(m, wait),
		guestapi.MethodSessionSignal: on(m, signal),
		guestapi.MethodSessionStop:   on(m, stop),
		guestapi.MethodSessionSend:   on(m, send),
		guestapi.MethodSessionDelete: on(m, m.delete),
		guestapi.MethodSessionLogs:   m.logs,
		guestapi.MethodSessionAttach: m.attach,
	}
	for name, h := range all {
		all[name] = func(ctx context.Context, c *call.Call) (any, error) {
			if err := m.load(); err != nil {
				return nil, err
			}
			return h(ctx, c)
		}
	}
	return all
}

// referrer is a parameter that names a session.
type referrer interface{ SessionName() string }

// on makes a handler of a function on the session that a call's parameters name.
func on[P referrer](m *Manager, fn func(context.Context, *session, P) (any, error)) call.Handler {
	return func(ctx context.Context, c *call.Call) (any, error) {
		var p P
		if err := c.Params(&p); err != nil {
			return nil, err
		}
		s, err := m.find(p.SessionName())
		if err != nil {
			return nil, err
		}
		return fn(ctx, s, p)
	}
}

// readAll learns of the sessions on the disk. Those that ran are lost.
func (m *Manager) readAll() error {
	entries, err := os.ReadDir(m.cfg.Dir)
	if err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("read sessions: %w", err)
	}
	for _, e := range entries {
		s, err := m.read(e.Name())
		if err != nil {
			m.cfg.Log.Error("read a session", "session", e.Name(), "err", err)
			continue
		}
		m.sessions[s.rec.ID] = s
	}
	return nil
}

// find returns the session that ref means: its name, its id, or a prefix that only its id has.
func (m *Manager) find(ref string) (*session, error) {
	const hint = "`banger vm session list` shows the sessions there are"
	m.mu.Lock()
	defer m.mu.Unlock()
	var found []*session
	for _, s := range m.sessions {
		if s.rec.Name == ref || s.rec.ID == ref {
			return s, nil
		}
		if ref != "" && strings.HasPrefix(s.rec.ID, ref) {
			found = append(found, s)
		}
	}
	switch len(found) {
	case 0:
		return nil, errkind.WithHint(errkind.New(api.KindNotFound, "no session %q in the guest", ref), hint)
	case 1:
		return found[0], nil
	}
	return nil, errkind.WithHint(errkind.New(api.KindInvalid, "%q is the beginning of more than one session's id", ref), hint)
}

func (m *Manager) list(context.Context, *call.Call) (any, error) {
	m.mu.Lock()
	all := make([]*session, 0, len(m.sessions))
	for _, s := range m.sessions {
		all = append(all, s)
	}
	m.mu.Unlock()
	list := guestapi.SessionList{Sessions: make([]guestapi.Session, 0, len(all))}
	for _, s := range all {
		list.Sessions = append(list.Sessions, s.view())
	}
	slices.SortFunc(list.Sessions, func(a, b guestapi.Session) int {
		return cmp.Or(a.Created.Compare(b.Created), strings.Compare(a.ID, b.ID))
	})
	return list, nil
}

// start starts a session. A command that cannot be executed is no error: nothing is kept then, and the answer has its status.
func (m *Manager) start(_ context.Context, c *call.Call) (any, error) {
	var spec guestapi.SessionSpec
	if err := c.Params(&spec); err != nil {
		return nil, err
	}
	cmd, err := m.preflight(spec)
	if err != nil {
		return nil, err
	}
	s, err := m.reserve(spec)
	if err != nil {
		return nil, err
	}
	err = s.begin(cmd)
	if err == nil {
		return s.view(), nil
	}
	s.finish(proc.Status(err)) // somebody may wait for it already
	if forgetErr := m.forget(s); forgetErr != nil {
		m.cfg.Log.Error("drop a session that did not start", "err", forgetErr)
	}
	if notRun(err) {
		return s.view(), nil
	}
	return nil, fmt.Errorf("start session %q: %w", s.rec.Name, err)
}

var label = regexp.MustCompile(`^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$`)

// minLog is the least that a log's limit may be: a record in each segment.
const minLog = 256 << 10

// preflight finds what is missing before anything is made; each of them is named.
func (m *Manager) preflight(spec guestapi.SessionSpec) (proc.Spec, error) {
	switch {
	case spec.Name != "" && !label.MatchString(spec.Name):
		return proc.Spec{}, errkind.WithHint(errkind.New(api.KindInvalid, "bad session name %q", spec.Name),
			"use 1 to 63 lower-case letters, digits and hyphens, beginning with a letter and not ending with a hyphen")
	case spec.LogLimit != 0 && spec.LogLimit < minLog:
		return proc.Spec{}, errkind.New(api.KindInvalid, "a log limit of %d bytes is below %d", spec.LogLimit, minLog)
	}
	cmd, err := m.cfg.Run.Spec(spec.ExecSpec)
	if err != nil {
		return cmd, err
	}
	if err := proc.CheckDir(cmd.Dir); err != nil {
		return cmd, err
	}
	var missing []string
	for _, name := range spec.Require {
		need := cmd
		need.Argv = []string{name}
		if _, err := proc.LookPath(need); err != nil {
			missing = append(missing, err.Error())
		}
	}
	if len(missing) > 0 {
		return cmd, errkind.WithHint(errkind.New(api.KindPrecondition, "the session requires what the guest does not have: %s", strings.Join(missing, "; ")),
			"install it in the guest, or leave it out of --require")
	}
	return cmd, nil
}

const defaultLog = 16 << 20

// reserve takes the session's name.
func (m *Manager) reserve(spec guestapi.SessionSpec) (*session, error) {
	var b [6]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	id := hex.EncodeToString(b[:])
	if spec.LogLimit == 0 {
		spec.LogLimit = defaultLog
	}
	s := m.newSession(record{Spec: spec, Session: guestapi.Session{
		ID: id, Name: cmp.Or(spec.Name, id), State: guestapi.SessionRunning, Argv: clip(spec.Argv), Cwd: spec.Cwd, User: spec.User,
		Tags: spec.Tags, TTY: spec.TTY, Stdin: spec.Stdin || spec.TTY, Created: time.Now(),
	}})
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, other := range m.sessions {
		if other.rec.Name == s.rec.Name {
			return nil, errkind.WithHint(errkind.New(api.KindExists, "session name %q is taken", spec.Name),
				"choose another name, or delete the session that has it")
		}
	}
	m.sessions[id] = s
	return s, nil
}

// forget removes all that there is of a session that has ended.
func (m *Manager) forget(s *session) error {
	s.group.remove()
	if s.log != nil {
		s.log.Close()
	}
	if err := os.RemoveAll(s.dir); err != nil {
		return fmt.Errorf("delete session %q: %w", s.rec.Name, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.sessions, s.rec.ID)
	return nil
}

func (m *Manager) delete(ctx context.Context, s *session, p guestapi.SessionDelete) (any, error) {
	if !s.view().State.Done() {
		if !p.Force {
			return nil, errkind.WithHint(errkind.New(api.KindPrecondition, "session %q has not ended", s.rec.Name),
				"stop it first, or delete it with --force")
		}
		if _, err := stop(ctx, s, guestapi.SessionStop{}); err != nil {
			return nil, err
		}
	}
	return nil, m.forget(s)
}

// clip keeps a list of sessions within one line of the channel, whatever their arguments.
func clip(argv []string) []string {
	const most = 4 << 10
	size := 0
	for i, word := range argv {
		if size += len(word); size > most {
			return append(slices.Clone(argv[:i]), "…")
		}
	}
	return argv
}

// notRun reports whether err is of a command that could not be executed.
func notRun(err error) bool {
	var exec *proc.ExecError
	return errors.As(err, &exec)
}

func (m *Manager) sessionDir(id string) string { return filepath.Join(m.cfg.Dir, id) }
