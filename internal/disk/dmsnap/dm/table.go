package dm

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// align is how targets are aligned in a request.
const align = 8

// encode writes the table as the kernel reads it: each target's struct dm_target_spec, then its parameters with a
// terminating zero; Next counts from the target's own beginning.
func (r *request) encode(table []Target) error {
	off := 0
	for _, t := range table {
		size := (unix.SizeofDmTargetSpec + len(t.Text) + 1 + align - 1) &^ (align - 1)
		if off+size > payloadSize {
			return fmt.Errorf("table of %d targets is longer than %d bytes", len(table), payloadSize)
		}
		spec := unix.DmTargetSpec{Sector_start: t.Start, Length: t.Length, Next: uint32(size)}
		if copy(spec.Target_type[:], t.Type); len(t.Type) >= len(spec.Target_type) {
			return fmt.Errorf("target type %q is too long", t.Type)
		}
		copy(r.payload[off:], (*[unix.SizeofDmTargetSpec]byte)(unsafe.Pointer(&spec))[:])
		copy(r.payload[off+unix.SizeofDmTargetSpec:], t.Text)
		off += size
	}
	r.Target_count = uint32(len(table))
	return nil
}

// decode reads the targets of an answer, in which Next counts from the beginning of the first.
func (r *request) decode() ([]Target, error) {
	if r.Data_start < unix.SizeofDmIoctl || r.Data_start > unix.SizeofDmIoctl+payloadSize {
		return nil, errBadAnswer
	}
	data := r.payload[r.Data_start-unix.SizeofDmIoctl:]
	var targets []Target
	next := 0
	for range r.Target_count {
		if next < 0 || next+unix.SizeofDmTargetSpec > len(data) {
			return nil, errBadAnswer
		}
		var spec unix.DmTargetSpec
		copy((*[unix.SizeofDmTargetSpec]byte)(unsafe.Pointer(&spec))[:], data[next:])
		targets = append(targets, Target{
			Start: spec.Sector_start, Length: spec.Length, Type: unix.ByteSliceToString(spec.Target_type[:]),
			Text: unix.ByteSliceToString(data[next+unix.SizeofDmTargetSpec:]),
		})
		next = int(spec.Next)
	}
	return targets, nil
}

var errBadAnswer = errors.New("the kernel's answer is cut short")
