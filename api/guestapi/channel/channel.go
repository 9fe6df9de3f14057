// Package channel is the handshake that opens the control channel between host and guest.
//
// A virtio-serial port is one endless byte stream for the guest, whoever holds the host's end of it: after a daemon
// restart the stream may still carry half a frame of the connection before. The handshake lets both ends agree on a byte
// from which on everything belongs to this connection:
//
//	host   SYN nonce   at once, and again every [Retry] until it is answered
//	guest  ACK nonce   once for each nonce; from then on it drops everything up to the matching GO
//	host   GO nonce    once; the next byte is the first of the multiplexer's
//
// The host drops everything up to the ACK with its own nonce. A message has [MessageLen] bytes: a magic of 15 bytes that
// begins with a byte no multiplexer frame begins with, the kind, the nonce, and a CRC-32 (IEEE) of all that, so that a
// copy of this very program in transit is not taken for a message.
//
// A new host may appear while the guest still waits for the rest of a dead connection's frame. The new host sends only SYN
// until it is answered, so its SYN is at the end of what the guest has read: the guest looks there, with [Watch], at no
// cost to speak of.
package channel

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"os"
	"time"
)

// MessageLen is the length of every handshake message in bytes.
const MessageLen = magicLen + 1 + nonceLen + 4

// Retry is the time between two SYN of a host that waits for its answer.
const Retry = 250 * time.Millisecond

const (
	magicLen = 15
	nonceLen = 8
	magic    = "\xb6\x9d\x00banger\xf3\x1a\x8e\xff\x07\xc4"

	kindSYN = 'S'
	kindACK = 'A'
	kindGO  = 'G'
)

// Nonce identifies one connection of a host.
type Nonce [nonceLen]byte

func encode(kind byte, n Nonce) []byte {
	b := make([]byte, 0, MessageLen)
	b = append(b, magic...)
	b = append(b, kind)
	b = append(b, n[:]...)
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
}

// decode reports whether b, of MessageLen bytes, is a message.
func decode(b []byte) (kind byte, n Nonce, ok bool) {
	if string(b[:magicLen]) != magic || crc32.ChecksumIEEE(b[:MessageLen-4]) != binary.BigEndian.Uint32(b[MessageLen-4:]) {
		return 0, n, false
	}
	copy(n[:], b[magicLen+1:])
	return b[magicLen], n, true
}

// scanner finds messages in a stream of anything.
type scanner struct {
	r   io.Reader
	buf []byte // read and not yet scanned
}

// next drops bytes up to and including the next message and returns that.
func (s *scanner) next() (byte, Nonce, error) {
	for {
		if i := bytes.Index(s.buf, []byte(magic)); i >= 0 {
			s.buf = s.buf[i:]
			if len(s.buf) >= MessageLen {
				if kind, n, ok := decode(s.buf[:MessageLen]); ok {
					s.buf = s.buf[MessageLen:]
					return kind, n, nil
				}
				s.buf = s.buf[1:]
				continue
			}
		} else if len(s.buf) >= magicLen {
			s.buf = s.buf[len(s.buf)-magicLen+1:]
		}
		if err := s.fill(); err != nil {
			return 0, Nonce{}, err
		}
	}
}

func (s *scanner) fill() error {
	chunk := make([]byte, 4096)
	n, err := s.r.Read(chunk)
	s.buf = append(s.buf, chunk[:n]...)
	if n > 0 {
		return nil
	}
	return err
}

// Host opens the channel from the host's side. Afterwards the next byte read or written on conn belongs to the new
// connection. When it fails, or ctx ends, conn is of no further use.
func Host(ctx context.Context, conn net.Conn) error {
	var nonce Nonce
	rand.Read(nonce[:])
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	err := host(conn, nonce)
	if !stop() {
		return context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	return conn.SetDeadline(time.Time{})
}

func host(conn net.Conn, nonce Nonce) error {
	syn := encode(kindSYN, nonce)
	s := &scanner{r: onceEvery{conn}}
	for {
		if _, err := conn.Write(syn); err != nil {
			return err
		}
		kind, n, err := s.next()
		for err == nil && (kind != kindACK || n != nonce) {
			kind, n, err = s.next()
		}
		if err == nil {
			break
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
	}
	if len(s.buf) > 0 {
		return fmt.Errorf("guest sent %d bytes before it was asked", len(s.buf))
	}
	_, err := conn.Write(encode(kindGO, nonce))
	return err
}

// onceEvery ends a read after Retry, so that the host can repeat its SYN.
type onceEvery struct{ conn net.Conn }

func (r onceEvery) Read(p []byte) (int, error) {
	if err := r.conn.SetReadDeadline(time.Now().Add(Retry)); err != nil {
		return 0, err
	}
	return r.conn.Read(p)
}

// Guest waits for a host and opens the channel from the guest's side. seen is the nonce of a SYN that [Watch] found, or
// nil. rest is what was read beyond the GO: the first bytes of the connection.
func Guest(rw io.ReadWriter, seen *Nonce) (rest []byte, err error) {
	s := &scanner{r: rw}
	var current *Nonce
	if seen != nil {
		current = seen
		if _, err := rw.Write(encode(kindACK, *seen)); err != nil {
			return nil, err
		}
	}
	for {
		kind, n, err := s.next()
		if err != nil {
			return nil, err
		}
		switch {
		case kind == kindSYN && (current == nil || *current != n):
			current = &n
			if _, err := rw.Write(encode(kindACK, n)); err != nil {
				return nil, err
			}
		case kind == kindGO && current != nil && *current == n:
			return s.buf, nil
		}
	}
}

// Watch finds the SYN of a new host in the stream of an old connection. The zero value is ready for use.
type Watch struct {
	tail [MessageLen]byte // the last bytes of the stream
}

// Feed takes the next bytes of the stream and reports whether these end with a SYN.
func (w *Watch) Feed(p []byte) (Nonce, bool) {
	if len(p) >= MessageLen {
		copy(w.tail[:], p[len(p)-MessageLen:])
	} else {
		copy(w.tail[:], w.tail[len(p):])
		copy(w.tail[MessageLen-len(p):], p)
	}
	kind, n, ok := decode(w.tail[:])
	return n, ok && kind == kindSYN
}
