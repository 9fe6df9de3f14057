package frame

import (
	"encoding/binary"
	"fmt"
	"time"
)

// Record is a piece of a session's output: the payload of a frame of type [Output], and what a session's log consists of.
type Record struct {
	Offset int64     // of Data's first byte, in the session's whole output; one that is beyond the end of the record before: what is between was lost
	Time   time.Time // when the session wrote it
	Stream Type      // [Stdout] or [Stderr]
	Data   []byte    // 1 to [MaxRecord] bytes
}

const recordHeader = 8 + 8 + 1

// MaxRecord is the most data that one record holds, in bytes.
const MaxRecord = MaxPayload - recordHeader

// End is the offset of what follows r.
func (r Record) End() int64 { return r.Offset + int64(len(r.Data)) }

// Append appends r's encoding to b: offset and time, in nanoseconds since 1970, as 8 bytes big endian each, the stream as
// one, and the data.
func (r Record) Append(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(r.Offset))
	b = binary.BigEndian.AppendUint64(b, uint64(r.Time.UnixNano()))
	return append(append(b, byte(r.Stream)), r.Data...)
}

// ParseRecord decodes the payload of a frame of type [Output]. Data is a part of p.
func ParseRecord(p []byte) (Record, error) {
	if len(p) <= recordHeader {
		return Record{}, fmt.Errorf("record of %d bytes is too short", len(p))
	}
	r := Record{
		Offset: int64(binary.BigEndian.Uint64(p)),
		Time:   time.Unix(0, int64(binary.BigEndian.Uint64(p[8:]))),
		Stream: Type(p[16]),
		Data:   p[recordHeader:],
	}
	if r.Offset < 0 || r.Stream != Stdout && r.Stream != Stderr {
		return Record{}, fmt.Errorf("record of %s at offset %d", r.Stream, r.Offset)
	}
	return r, nil
}

// After returns the part of r that is at or behind offset from; Data is empty when there is none.
func (r Record) After(from int64) Record {
	if skip := min(max(from-r.Offset, 0), int64(len(r.Data))); skip > 0 {
		r.Offset, r.Data = r.Offset+skip, r.Data[skip:]
	}
	return r
}
