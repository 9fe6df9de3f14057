// Package session supervises commands of the guest that outlive their clients, the network and the daemon: a coding agent, a long
// build, a server.
//
// A session is a command with a name. Its process leads a process group and, where the guest has cgroup v2, everything it starts
// is in a cgroup of the session's own, so that a stop leaves no orphan. What it writes goes to its log (package outlog), which
// readers follow at their own pace: no client can make the command wait. Its input is a queue that one attached client and any
// number of sends fill.
//
// # On disk
//
// Below the manager's directory a session has the directory ID with its record, session.json, written by rename, and log/. A record
// that says that the session runs, and that another agent wrote, is of a session that is lost: the guest or the agent ended first.
// Its log is still there.
//
// # Locks
//
// Manager.mu comes before session.mu, which comes before queue.mu; the log has its own. Records are written under session.mu, so
// that the last word is on the disk. Nothing waits for a process, a client or a queue under any of them.
package session
