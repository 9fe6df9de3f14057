// Package qmp speaks QEMU's machine protocol (docs/interop/qmp-spec.rst of QEMU): JSON objects, one a line, over a Unix
// socket; a greeting, then commands with their answers, and events at any time. QEMU tells by an event how a guest ended,
// which nothing else does reliably.
//
// QEMU serves one client of a socket at a time: the next one waits for its greeting. Events go to the client that is served;
// nobody gets those of the time before.
package qmp

import (
	"encoding/json"
	"io"
)

// maxLine bounds one message, in bytes. Events are a few hundred.
const maxLine = 1 << 20

// Event is something that happened to the machine (qapi/run-state.json of QEMU).
type Event struct {
	Name string          `json:"event"` // such as SHUTDOWN
	Data json.RawMessage `json:"data"`
}

// Reason is why QEMU ends (ShutdownCause in qapi/run-state.json). The constants are those that banger tells apart; a guest-panic
// follows each GUEST_PANICKED event.
type Reason string

// The reasons.
const (
	GuestShutdown Reason = "guest-shutdown" // the guest powered off
	GuestReset    Reason = "guest-reset"    // the guest reset, and QEMU does not reboot
	GuestPanic    Reason = "guest-panic"
	HostSignal    Reason = "host-signal" // QEMU got SIGTERM, SIGINT or SIGHUP
)

// Shutdown returns the reason of a SHUTDOWN event; it is empty for other events.
func (e Event) Shutdown() Reason {
	var data struct {
		Reason Reason `json:"reason"`
	}
	if e.Name != "SHUTDOWN" || json.Unmarshal(e.Data, &data) != nil {
		return ""
	}
	return data.Reason
}

// NoSpace reports whether e tells that the guest was halted because the host's disk has no room for what it writes
// (BLOCK_IO_ERROR in qapi/block-core.json).
func (e Event) NoSpace() bool {
	var data struct {
		Action  string `json:"action"`
		NoSpace bool   `json:"nospace"`
	}
	return e.Name == "BLOCK_IO_ERROR" && json.Unmarshal(e.Data, &data) == nil && data.NoSpace && data.Action == "stop"
}

// Resumed is the name of the event that a halted guest goes on.
const Resumed = "RESUME"

// StatusIOError is the run state of a machine that was halted by an error of a disk (RunState in qapi/run-state.json).
const StatusIOError = "io-error"

// Listener is told what QEMU says, in order, by one goroutine.
type Listener struct {
	Event  func(Event)
	Status func(status string) // the machine's run state when listening begins: events of the time before are lost
}

// Cont lets a halted guest go on. It may be called while another goroutine listens on conn.
func Cont(conn io.Writer) error {
	_, err := io.WriteString(conn, `{"execute":"cont"}`+"\n")
	return err
}

// message is anything that QEMU sends.
type message struct {
	Greeting json.RawMessage `json:"QMP"`
	Event
	ID     int             `json:"id"` // of the command that this answers; 0: of one that Listen gave
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Desc string `json:"desc"`
	} `json:"error"`
}

// status returns the machine's run state from the answer to query-status; of other answers it is empty.
func (m message) status() string {
	var data struct{ Status string }
	if json.Unmarshal(m.Return, &data) != nil {
		return ""
	}
	return data.Status
}
