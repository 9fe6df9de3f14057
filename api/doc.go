// Package api is the wire contract of banger's daemon: method names, parameters, results, error kinds and the protocol
// version. It imports the standard library only, so that a client in any module can use it.
//
// # Transport
//
// The daemon listens on a Unix socket and speaks JSON-RPC 2.0, one object a line. A connection carries either any number
// of ordinary calls, or one stream call. A stream call is the first line of its connection; once the daemon has answered
// it with a result line, the connection stops being JSON-RPC and carries bytes: frames of package api/frame (exec,
// copies), raw bytes (dial), or JSON objects one a line (watch). Which methods are streams is in the method table.
//
// The same two lines, request and response, open every stream between the daemon and the guest's agent (package
// api/guestapi); the daemon joins the two ends and never decodes what flows between them.
//
// # Errors
//
// An error object's data member is an [Error]: kind, message, hint and, when one is concerned, operation id.
package api

// ProtocolVersion is the version of this contract. Daemon and client must have the same one; `daemon.ping` reports it.
const ProtocolVersion = 1
