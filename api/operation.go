package api

import (
	"encoding/json"
	"time"
)

// OperationState is where an operation stands.
type OperationState string

// The states of an operation; it ends in one of the last four.
const (
	OperationRunning     OperationState = "running"
	OperationSucceeded   OperationState = "succeeded"
	OperationFailed      OperationState = "failed"
	OperationCanceled    OperationState = "canceled"
	OperationInterrupted OperationState = "interrupted" // the daemon went away in the middle
)

// Done reports whether s is an end.
func (s OperationState) Done() bool { return s != OperationRunning && s != "" }

// Operation is a long-running request: what it does, how far it is, and how it ended.
type Operation struct {
	ID       string          `json:"id"`                // 12 hex digits
	Kind     string          `json:"kind"`              // the method that began it, such as vm.create
	Subject  string          `json:"subject,omitempty"` // name of the VM, image or kernel
	State    OperationState  `json:"state"`
	Stage    string          `json:"stage,omitempty"`    // what it does now
	Stages   []Stage         `json:"stages,omitempty"`   // all so far, in order
	Progress *Progress       `json:"progress,omitempty"` // of the present stage, where an amount is known
	Error    *Error          `json:"error,omitempty"`    // why it did not succeed
	Result   json.RawMessage `json:"result,omitempty"`   // a Ref by id to what was made, when succeeded
	Created  time.Time       `json:"created"`
	Ended    time.Time       `json:"ended,omitzero"`
}

// Stage is one step of an operation.
type Stage struct {
	Name   string    `json:"name"`
	Begun  time.Time `json:"begun"`
	TookMS int64     `json:"took_ms"` // -1 while it has not ended
}

// Progress is an amount done of a known total, in Unit (bytes, packages, files).
type Progress struct {
	Done  int64  `json:"done"`
	Total int64  `json:"total"`
	Unit  string `json:"unit"`
}

// OperationRef is the result of the begin methods, and the parameter of those that look an operation up.
type OperationRef struct {
	ID string `json:"id"` // of the operation, or a prefix of it that only one has
}

// OperationList is the result of operation.list, newest first.
type OperationList struct {
	Operations []Operation `json:"operations"`
}
