package dmsnap

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/disk"
	"github.com/banger-vm/banger/internal/errkind"
	"golang.org/x/sys/unix"
)

// State is where a clone is in its life.
type State int

// The states. The zero value is invalid on purpose.
const (
	_          State = iota
	Creating         // files are being made; there is no device
	Created          // the files are whole; there is no device
	Activating       // a device is being made
	Active           // there was a device when this was written
	Removing         // device and files are going
	Faulty           // what was written is lost
)

var stateNames = [...]string{"invalid", "creating", "created", "activating", "active", "removing", "faulty"}

func (s State) String() string {
	if s < 0 || int(s) >= len(stateNames) {
		return fmt.Sprintf("state(%d)", int(s))
	}
	return stateNames[s]
}

// MarshalText gives the state's name.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText takes a state's name. The invalid state does not parse.
func (s *State) UnmarshalText(b []byte) error {
	i := slices.Index(stateNames[:], string(b))
	if i <= 0 {
		return fmt.Errorf("unknown state %q of a clone", b)
	}
	*s = State(i)
	return nil
}

// transitions lists, for each state, the states that may follow it. A crash, or a reboot of the host, changes nothing that is
// written: an "-ing" state may be followed by itself.
var transitions = map[State][]State{
	Creating:   {Created},
	Created:    {Activating, Removing, Faulty},
	Activating: {Activating, Active, Created, Removing, Faulty},
	Active:     {Activating, Created, Removing, Faulty},
	Removing:   {Removing},
	Faulty:     {Removing},
}

// record is what is kept of a clone, as JSON.
type record struct {
	State    State  `json:"state"`
	Base     string `json:"base"`
	BaseSize int64  `json:"base_size"` // bytes
	Device   string `json:"device"`    // its name while it is active
}

func recordPath(v disk.Volume) string { return v.Path + ".dmsnap" }
func storePath(v disk.Volume) string  { return v.Path + ".cow" }
func tailPath(v disk.Volume) string   { return v.Path + ".tail" }

// deviceName is the device's name: for people, the last two parts of the path, which are VM and disk, and for uniqueness the beginning
// of the path's digest.
func deviceName(v disk.Volume) string {
	sum := sha256.Sum256([]byte(v.Path))
	part := func(s string) string { return s[:min(len(s), 40)] }
	return fmt.Sprintf("banger-%s-%s-%s", part(filepath.Base(filepath.Dir(v.Path))), part(filepath.Base(v.Path)), hex.EncodeToString(sum[:4]))
}

// readRecord returns v's record. Kind not-found: there is no clone.
func readRecord(v disk.Volume) (record, error) {
	var r record
	b, err := os.ReadFile(recordPath(v))
	if errors.Is(err, os.ErrNotExist) {
		return r, errkind.New(api.KindNotFound, "disk %s is gone", recordPath(v))
	}
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, errkind.WithHint(errkind.New(api.KindDataLoss, "%s is damaged: %w", recordPath(v), err),
			"restore the file from a backup, or delete the VM")
	}
	return r, nil
}

func (r record) write(v disk.Volume) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return disk.Stage(recordPath(v), func(f *os.File) error {
		_, err := f.Write(append(b, '\n'))
		return errors.Join(err, f.Sync())
	})
}

// become writes the next state.
func (r *record) become(v disk.Volume, next State) error {
	if !slices.Contains(transitions[r.State], next) {
		return errkind.New(api.KindInternal, "clone %s is %s and cannot become %s", v.Path, r.State, next)
	}
	r.State = next
	return r.write(v)
}

// unlessFull forgives a full file system, for what frees space or needs none: the record then stays behind the truth, as after a
// crash.
func unlessFull(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return nil
	}
	return err
}

// check tells whether the record is of a clone of v's base as it is now.
func (r record) check(v disk.Volume, baseSize int64) error {
	switch {
	case r.Base != v.Base:
		return errkind.New(api.KindExists, "%s is a clone of %s", recordPath(v), r.Base)
	case r.BaseSize != baseSize:
		return errkind.WithHint(
			errkind.New(api.KindDataLoss, "image file %s has %d bytes, and had %d when it was cloned", r.Base, baseSize, r.BaseSize),
			"images must not change while VMs use them: restore the file, or delete the VM")
	}
	return nil
}

// usable tells whether the clone's data is there.
func (r record) usable(v disk.Volume) error {
	switch r.State {
	case Creating, Removing:
		return errkind.New(api.KindNotFound, "disk %s is gone: its state is %s", recordPath(v), r.State)
	case Faulty:
		return lost(v)
	}
	if _, err := os.Stat(storePath(v)); err != nil {
		return errkind.WithHint(errkind.New(api.KindDataLoss, "what was written to the disk is gone: %w", err),
			"restore the file from a backup, or delete the VM")
	}
	return nil
}

// lost is the error of a snapshot that the kernel has given up.
func lost(v disk.Volume) error {
	return errkind.WithHint(
		errkind.New(api.KindDataLoss, "disk %s is lost: its store %s could not be written, most likely because the file system was full, "+
			"and the kernel has dropped the snapshot", v.Path, storePath(v)),
		"restore %s and %s from a backup, or delete the VM; keep space free, and heed the condition \"disks\"", recordPath(v), storePath(v))
}
