package api

import "github.com/banger-vm/banger/api/guestapi"

// Session is one session of a VM: a command that goes on when its client, the network or the daemon goes away.
type Session struct {
	guestapi.Session
	VM   string `json:"vm"`    // the VM's name
	VMID string `json:"vm_id"` // the VM's id
}

// SessionStart is the parameter of session.start. A command that cannot be executed is no error: the answer, of which nothing is
// kept, has no Started, and an Exit of 126 or 127.
type SessionStart struct {
	Ref
	guestapi.SessionSpec
}

// SessionsOf is the parameter of session.list.
type SessionsOf struct {
	Refs []string `json:"refs,omitempty"` // VMs; empty: all
}

// SessionList is the result of session.list, by VM and age. Of VMs that do not answer it is what their agent said last; a
// session that ran in a VM which does not run any more is lost.
type SessionList struct {
	Sessions []Session `json:"sessions"`
}

// SessionRef is the parameter of session.get and session.wait: a VM, and a session of it.
type SessionRef struct {
	Ref
	guestapi.SessionRef
}

// SessionSignal is the parameter of session.signal.
type SessionSignal struct {
	Ref
	guestapi.SessionSignal
}

// SessionStop is the parameter of session.stop.
type SessionStop struct {
	Ref
	guestapi.SessionStop
}

// SessionSend is the parameter of session.send.
type SessionSend struct {
	Ref
	guestapi.SessionSend
}

// SessionDelete is the parameter of session.delete.
type SessionDelete struct {
	Ref
	guestapi.SessionDelete
}

// SessionLogs is the parameter of session.logs, a stream of frames: output, and exit at its end.
type SessionLogs struct {
	Ref
	guestapi.SessionLogs
}

// SessionAttach is the parameter of session.attach, a stream of frames. To the session go stdin, stdin-eof, resize and signal; from
// it come output, stdin-taken and, last, exit or detached.
type SessionAttach struct {
	Ref
	guestapi.SessionAttach
}
