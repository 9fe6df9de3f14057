package api

import (
	"time"

	"github.com/banger-vm/banger/api/guestapi"
)

// Workspace is a git repository that was carried into a guest.
type Workspace struct {
	GuestPath  string    `json:"guest_path"`  // absolute
	Source     string    `json:"source"`      // the repository's root on the host
	Branch     string    `json:"branch"`      // checked out in the guest; empty when detached
	BaseCommit string    `json:"base_commit"` // the commit it started from
	BaseTree   string    `json:"base_tree"`   // tree id of exactly what was carried in, uncommitted changes included
	Prepared   time.Time `json:"prepared"`
	// ExportedTree is the tree of the last successful export, so that "unexported" can be told.
	ExportedTree string    `json:"exported_tree,omitempty"`
	Exported     time.Time `json:"exported,omitzero"`
	// Changes is what was known when the VM last stopped: clean, changed, unknown; empty while it runs.
	Changes string `json:"changes,omitempty"`
}

// WorkPrepare is the parameter of workspace.prepare, a stream of frames: stdin carries the workspace as one tar (see
// internal/workspace), exit says how it went. The record is written before the first byte is taken.
type WorkPrepare struct {
	Ref
	Workspace Workspace `json:"workspace"` // the daemon fills in what is not of the source
}

// WorkStatus is the result of workspace.status.
type WorkStatus struct {
	Workspace  Workspace           `json:"workspace"`
	Unexported bool                `json:"unexported"` // there are changes that no export has carried out
	Status     guestapi.WorkStatus `json:"status"`     // as the guest sees it
}

// WorkExport is the parameter of workspace.export, a stream of frames: stdout carries the export, exit ends it.
type WorkExport struct {
	Ref
	Format string `json:"format,omitempty"` // patch (default), bundle, tar
	// Base is what a patch is made against: "import" (default), the exact tree that was carried in; or "commit", the base
	// commit, so that what was uncommitted on the host is part of it.
	Base string `json:"base,omitempty"`
}

// WorkExported is the parameter of workspace.exported: a client says that it has safely stored the export of the state
// with this tree id, so that these changes no longer stand in the way of deleting the VM.
type WorkExported struct {
	Ref
	Tree string `json:"tree"` // as the export's reply has it in status.tree
}
