package channel

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"testing"
)

// script is a stream with a given input; what is written is kept.
type script struct {
	in  io.Reader
	out bytes.Buffer
}

func (s *script) Read(p []byte) (int, error)  { return s.in.Read(p) }
func (s *script) Write(p []byte) (int, error) { return s.out.Write(p) }

func join(parts ...[]byte) io.Reader { return bytes.NewReader(bytes.Join(parts, nil)) }

// bytewise gives one byte for each read.
type bytewise struct{ r io.Reader }

func (b bytewise) Read(p []byte) (int, error) { return b.r.Read(p[:min(1, len(p))]) }

func TestMessagesHaveTheDocumentedLength(t *testing.T) {
	if n := len(encode(kindSYN, Nonce{})); n != MessageLen {
		t.Fatalf("a message has %d bytes, want %d", n, MessageLen)
	}
}

func TestGuest(t *testing.T) {
	a, b := Nonce{1}, Nonce{2}
	damaged := encode(kindGO, a)
	damaged[MessageLen-1]++
	noise := make([]byte, 10_000)
	rand.Read(noise)
	tests := []struct {
		name string
		in   [][]byte
		seen *Nonce
		acks []Nonce
		rest string
	}{
		{"a host on a clean stream", [][]byte{encode(kindSYN, a), encode(kindGO, a), []byte("rest")}, nil, []Nonce{a}, "rest"},
		{"noise before the host", [][]byte{noise, encode(kindSYN, a), encode(kindGO, a)}, nil, []Nonce{a}, ""},
		{"an impatient host is answered once", [][]byte{encode(kindSYN, a), encode(kindSYN, a), encode(kindGO, a)}, nil, []Nonce{a}, ""},
		{"half a message before the host", [][]byte{encode(kindSYN, b)[:20], encode(kindSYN, a), encode(kindGO, a)}, nil, []Nonce{a}, ""},
		{"a second host takes over", [][]byte{encode(kindSYN, b), encode(kindSYN, a), encode(kindGO, b), []byte("old"), encode(kindGO, a)}, nil, []Nonce{b, a}, ""},
		{"a damaged GO is noise", [][]byte{encode(kindSYN, a), damaged, encode(kindGO, a)}, nil, []Nonce{a}, ""},
		{"the magic alone is noise", [][]byte{[]byte(magic), []byte(magic + magic), encode(kindSYN, a), encode(kindGO, a)}, nil, []Nonce{a}, ""},
		{"a host seen before is answered at once", [][]byte{encode(kindSYN, a), encode(kindGO, a)}, &a, []Nonce{a}, ""},
	}
	for _, tt := range tests {
		for _, single := range []bool{false, true} {
			name := tt.name
			if single {
				name += ", byte by byte"
			}
			t.Run(name, func(t *testing.T) {
				s := &script{in: join(tt.in...)}
				if single {
					s.in = bytewise{s.in}
				}
				rest, err := Guest(s, tt.seen)
				if err != nil {
					t.Fatal(err)
				}
				if all, _ := io.ReadAll(s.in); string(rest)+string(all) != tt.rest {
					t.Errorf("rest is %q, want %q", string(rest)+string(all), tt.rest)
				}
				var want []byte
				for _, n := range tt.acks {
					want = append(want, encode(kindACK, n)...)
				}
				if !bytes.Equal(s.out.Bytes(), want) {
					t.Errorf("the guest wrote %x, want %x", s.out.Bytes(), want)
				}
			})
		}
	}
}

func TestGuestEndsWithItsStream(t *testing.T) {
	if _, err := Guest(&script{in: join(encode(kindSYN, Nonce{1}))}, nil); !errors.Is(err, io.EOF) {
		t.Fatalf("error is %v, want EOF", err)
	}
}

func TestHost(t *testing.T) {
	t.Run("drops a dead connection's bytes, and other hosts' answers", func(t *testing.T) {
		host, guest := net.Pipe()
		defer host.Close()
		go func() {
			defer guest.Close()
			syn := make([]byte, MessageLen)
			io.ReadFull(guest, syn)
			_, nonce, _ := decode(syn)
			guest.Write([]byte("stale half frame"))
			guest.Write(encode(kindACK, Nonce{9}))
			guest.Write(encode(kindACK, nonce))
			io.ReadFull(guest, syn)
			if kind, n, ok := decode(syn); !ok || kind != kindGO || n != nonce {
				return
			}
			guest.Write([]byte("first"))
		}()
		if err := Host(t.Context(), host); err != nil {
			t.Fatal(err)
		}
		if b, _ := io.ReadAll(host); string(b) != "first" {
			t.Errorf("read %q after the handshake, want %q", b, "first")
		}
	})
	t.Run("asks again while nobody answers", func(t *testing.T) {
		host, guest := net.Pipe()
		defer host.Close()
		go func() {
			io.ReadFull(guest, make([]byte, 3*MessageLen))
			Guest(guest, nil)
		}()
		if err := Host(t.Context(), host); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("ends with its context", func(t *testing.T) {
		host, guest := net.Pipe()
		defer host.Close()
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			io.ReadFull(guest, make([]byte, MessageLen))
			cancel()
		}()
		if err := Host(ctx, host); !errors.Is(err, context.Canceled) {
			t.Fatalf("error is %v, want canceled", err)
		}
	})
	t.Run("ends when the machine does", func(t *testing.T) {
		host, guest := net.Pipe()
		guest.Close()
		if err := Host(t.Context(), host); err == nil {
			t.Fatal("no error")
		}
	})
}

func TestWatch(t *testing.T) {
	syn := encode(kindSYN, Nonce{7})
	stream := append(bytes.Repeat([]byte("payload "), 100), syn...)
	for _, chunk := range []int{1, 3, MessageLen - 1, MessageLen, 64, len(stream)} {
		var w Watch
		found := 0
		for i := 0; i < len(stream); i += chunk {
			if n, ok := w.Feed(stream[i:min(i+chunk, len(stream))]); ok && n == (Nonce{7}) {
				found++
			}
		}
		if found != 1 {
			t.Errorf("in chunks of %d the SYN was seen %d times", chunk, found)
		}
	}
	var w Watch
	if _, ok := w.Feed(append(bytes.Clone(syn), 'x')); ok {
		t.Error("a SYN with bytes after it is payload: a host waits for its answer")
	}
	if _, ok := w.Feed(encode(kindGO, Nonce{7})); ok {
		t.Error("a GO is no SYN")
	}
}

func FuzzGuest(f *testing.F) {
	f.Add([]byte("noise"), []byte(magic))
	f.Fuzz(func(t *testing.T, before, between []byte) {
		n := Nonce{42}
		s := &script{in: join(before, encode(kindSYN, n), between, encode(kindGO, n), []byte("z"))}
		rest, err := Guest(s, nil)
		if err != nil {
			t.Fatal(err)
		}
		if all, _ := io.ReadAll(s.in); string(rest)+string(all) != "z" {
			t.Fatalf("rest is %q", rest)
		}
	})
}
