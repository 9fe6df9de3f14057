package guestapi

import (
	"time"

	"github.com/banger-vm/banger/api/frame"
)

// The agent's methods for sessions: commands that go on when their client, the network or the daemon goes away.
const (
	MethodSessionStart  = "session.start"  // SessionSpec → Session
	MethodSessionList   = "session.list"   // → SessionList
	MethodSessionGet    = "session.get"    // SessionRef → Session
	MethodSessionWait   = "session.wait"   // SessionRef → Session, once it has ended
	MethodSessionSignal = "session.signal" // SessionSignal → none
	MethodSessionStop   = "session.stop"   // SessionStop → Session, once it has ended
	MethodSessionSend   = "session.send"   // SessionSend → none, once it is queued
	MethodSessionDelete = "session.delete" // SessionDelete → none
	MethodSessionLogs   = "session.logs"   // SessionLogs → Session, then frames: output; exit ends them
	MethodSessionAttach = "session.attach" // SessionAttach → SessionAttached, then frames: output, stdin-taken; exit or detached ends them
)

// SessionState is what a session is doing.
type SessionState string

// The states. The last two are ends; what ended stays known, with its log, until it is deleted.
const (
	SessionRunning  SessionState = "running"
	SessionWaiting  SessionState = "waiting"  // it failed, and is about to be started again
	SessionStopping SessionState = "stopping" // it was asked to end
	SessionExited   SessionState = "exited"   // it ended, with the session's Exit
	SessionLost     SessionState = "lost"     // the guest or its agent ended before it; its log is there
)

// Done reports whether s is an end.
func (s SessionState) Done() bool { return s == SessionExited || s == SessionLost }

// SessionSpec is a session to start. With TTY it has a pseudo-terminal, with Stdin a pipe as its standard input, else none.
type SessionSpec struct {
	ExecSpec
	Name string   `json:"name,omitempty"` // a DNS label that no other session of the guest has; empty: the session's id
	Tags []string `json:"tags,omitempty"` // words to find it by
	// Require names commands that must be in the guest, found as Argv[0] is, before anything is started.
	Require []string `json:"require,omitempty"`
	// RestartOnFailure starts the command again, after 1 s and then ever longer up to 30 s, when it ends with a status other than 0.
	RestartOnFailure bool `json:"restart_on_failure,omitempty"`
	// LogLimit is how many bytes of output are kept on the guest's disk, the last ones; 0 is 16 MiB.
	LogLimit int64 `json:"log_limit,omitempty"`
}

// Session is one session of a guest.
type Session struct {
	ID       string            `json:"id"` // 12 hex digits
	Name     string            `json:"name"`
	State    SessionState      `json:"state"`
	Argv     []string          `json:"argv"` // what is beyond 4 KiB is cut off
	Cwd      string            `json:"cwd,omitempty"`
	User     string            `json:"user,omitempty"`
	Tags     []string          `json:"tags,omitempty"`
	TTY      bool              `json:"tty,omitempty"`
	Stdin    bool              `json:"stdin,omitempty"`
	PID      int               `json:"pid,omitempty"`      // in the guest, while it runs
	Restarts int               `json:"restarts,omitempty"` // how often it was started again
	Exit     *frame.ExitStatus `json:"exit,omitempty"`     // how it ended, or ended last
	Created  time.Time         `json:"created"`
	Started  time.Time         `json:"started,omitzero"` // last
	Ended    time.Time         `json:"ended,omitzero"`
	LogFirst int64             `json:"log_first"`          // offset of the first byte of output that is kept
	LogEnd   int64             `json:"log_end"`            // bytes of output so far
	LogLost  int64             `json:"log_lost,omitempty"` // bytes that could not be written, as when the disk was full
	Attached int               `json:"attached,omitempty"` // clients
}

// SessionList is all sessions of a guest, oldest first.
type SessionList struct {
	Sessions []Session `json:"sessions"`
}

// SessionRef names a session of a guest.
type SessionRef struct {
	Session string `json:"session"` // its name, id, or a prefix of its id that only one has
}

// SessionName returns what names the session.
func (r SessionRef) SessionName() string { return r.Session }

// SessionSignal sends a signal to a session's process group.
type SessionSignal struct {
	SessionRef
	Signal string `json:"signal"` // a name such as TERM, with or without SIG, or a number
}

// SessionStop ends a session with all its processes: SIGTERM, and SIGKILL to what is left after the grace.
type SessionStop struct {
	SessionRef
	GraceMS int64 `json:"grace_ms,omitempty"` // 0: at once
}

// SessionSend gives a session input. It waits while more than 256 KiB of input are not yet taken.
type SessionSend struct {
	SessionRef
	Data []byte `json:"data,omitempty"` // the input, any bytes
	EOF  bool   `json:"eof,omitempty"`  // and that is the end of the input
}

// SessionDelete forgets a session that has ended, with its log.
type SessionDelete struct {
	SessionRef
	Force bool `json:"force,omitempty"` // end it first, if need be, as a stop without grace
}

// SessionLogs asks for output of a session. Each of the zero values restricts nothing.
type SessionLogs struct {
	SessionRef
	From   int64     `json:"from,omitempty"`   // offset in the whole output
	Tail   int       `json:"tail,omitempty"`   // lines from the end
	Since  time.Time `json:"since,omitzero"`   // by the guest's clock
	Stream string    `json:"stream,omitempty"` // stdout or stderr
	Follow bool      `json:"follow,omitempty"` // go on until the session has ended
}

// SessionAttach joins a client to a session: output comes as it is written, and, unless ReadOnly, input may be sent as to
// [MethodExec]. Any number may read, one may write. A client that reads too slowly misses output that is no longer kept.
type SessionAttach struct {
	SessionRef
	ReadOnly bool `json:"read_only,omitempty"` // send nothing
	Take     bool `json:"take,omitempty"`      // end the attachment of another that writes
	// Client is the same, and nobody else's, each time one client attaches: it then takes the place of itself.
	Client string `json:"client,omitempty"`
	Replay int64  `json:"replay,omitempty"` // bytes from the end of the output to begin with
	From   *int64 `json:"from,omitempty"`   // instead: the offset to begin at
	// Size is of the client's terminal. The session's is the smallest of those attached.
	Size *frame.WindowSize `json:"size,omitempty"`
}

// SessionAttached answers [MethodSessionAttach].
type SessionAttached struct {
	Session     Session `json:"session"`
	From        int64   `json:"from"`                   // offset of the output that comes
	StdinWindow int     `json:"stdin_window,omitempty"` // as of [ExecStarted]
}
