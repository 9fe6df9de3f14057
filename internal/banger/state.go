package banger

import (
	"fmt"
	"slices"
)

// State is where a VM is in its life.
type State int

// The states. The zero value is invalid on purpose.
const (
	_ State = iota
	Created
	Starting
	Running
	Paused
	Stopping
	Stopped
	Failed
)

var stateNames = [...]string{"invalid", "created", "starting", "running", "paused", "stopping", "stopped", "failed"}

func (s State) String() string {
	if s < 0 || int(s) >= len(stateNames) {
		return fmt.Sprintf("state(%d)", int(s))
	}
	return stateNames[s]
}

// ParseState is the inverse of String. The invalid state does not parse.
func ParseState(name string) (State, error) {
	if i := slices.Index(stateNames[:], name); i > 0 {
		return State(i), nil
	}
	return 0, fmt.Errorf("unknown VM state %q", name)
}

// MarshalText gives the state's name.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText takes a state's name.
func (s *State) UnmarshalText(b []byte) error {
	v, err := ParseState(string(b))
	*s = v
	return err
}

// transitions lists, for each state, the states that may follow it. Stopped and Failed may follow any state in which a
// machine may exist, because a machine can die at any time. A stop that is canceled before the guest ended goes back to Running.
var transitions = map[State][]State{
	Created:  {Starting},
	Starting: {Running, Stopped, Created, Failed},
	Running:  {Paused, Stopping, Stopped, Failed},
	Paused:   {Running, Stopping, Stopped, Failed},
	Stopping: {Stopped, Failed, Running},
	Stopped:  {Starting},
	Failed:   {Starting, Stopping, Stopped},
}

// CanBecome reports whether a VM in state s may go to state next.
func (s State) CanBecome(next State) bool { return slices.Contains(transitions[s], next) }

// Live reports whether a machine may exist in state s.
func (s State) Live() bool {
	return s == Starting || s == Running || s == Paused || s == Stopping
}
