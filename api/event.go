package api

import "time"

// EventType says what happened, as noun.verb.
type EventType string

// The types of events.
const (
	EventVMCreated      EventType = "vm.created"
	EventVMState        EventType = "vm.state"   // the VM went from Before to State
	EventVMChanged      EventType = "vm.changed" // its specification, by vm.set
	EventVMCondition    EventType = "vm.condition"
	EventVMWorkspace    EventType = "vm.workspace" // prepared, exported, or found changed
	EventVMIdle         EventType = "vm.idle"      // it will be stopped soon unless it is used; Message says when and why
	EventVMDeleted      EventType = "vm.deleted"
	EventImageCreated   EventType = "image.created"
	EventImageDeleted   EventType = "image.deleted"
	EventKernelCreated  EventType = "kernel.created"
	EventKernelDeleted  EventType = "kernel.deleted"
	EventOperationBegun EventType = "operation.begun"
	EventOperationEnded EventType = "operation.ended"
)

// EventTypes returns all types, in the order above.
func EventTypes() []EventType {
	return []EventType{
		EventVMCreated, EventVMState, EventVMChanged, EventVMCondition, EventVMWorkspace, EventVMIdle, EventVMDeleted,
		EventImageCreated, EventImageDeleted, EventKernelCreated, EventKernelDeleted, EventOperationBegun, EventOperationEnded,
	}
}

// Event is one thing that happened. Events are stored with what they tell, in one transaction: none is missing, and their
// order is that of the changes.
type Event struct {
	// Seq grows from event to event, with gaps. It is the resume token: see [Events.After].
	Seq     int64     `json:"seq"`
	At      time.Time `json:"at"`
	Type    EventType `json:"type"`
	ID      string    `json:"id"`             // of the VM, image, kernel or operation
	Name    string    `json:"name,omitempty"` // its name; of an operation its subject's
	State   string    `json:"state,omitempty"`
	Before  string    `json:"before,omitempty"` // vm.state: the state before
	Kind    string    `json:"kind,omitempty"`   // of an operation: the method that began it
	Message string    `json:"message,omitempty"`
}

// Events is the parameter of daemon.events, a stream of lines.
type Events struct {
	// After is the Seq of the last event that the client has seen; what came later is sent at once. Zero: what happens from
	// now on. -1: everything that is remembered. A token that is older than what is remembered is of kind precondition.
	After int64 `json:"after,omitempty"`
	// Types are the types that are wanted; empty is all. A bare noun, such as vm, means all of its types.
	Types []string `json:"types,omitempty"`
	// Subject is the id or name that an event must have; empty is any.
	Subject string `json:"subject,omitempty"`
	// Follow goes on with events as they happen; without it the stream ends with the last one that is stored.
	Follow bool `json:"follow,omitempty"`
}

// EventsReply is the answer to daemon.events.
type EventsReply struct {
	// Last is the Seq after which the stream goes on: a client that saw no event resumes from here.
	Last int64 `json:"last"`
}
