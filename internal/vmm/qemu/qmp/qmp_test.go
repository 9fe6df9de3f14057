package qmp

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	greeting = `{"QMP":{"version":{"qemu":{"micro":22,"minor":2,"major":7},"package":"Debian"},"capabilities":["oob"]}}` + "\r\n"
	answer   = `{"return":{}}` + "\r\n"
)

// peer is QEMU's end of a connection: what it sends, and what it was sent.
type peer struct {
	io.Reader
	sent   bytes.Buffer
	refuse error
}

func (p *peer) Write(b []byte) (int, error) {
	if p.refuse != nil {
		return 0, p.refuse
	}
	return p.sent.Write(b)
}

func listen(p *peer) (names []string, reasons []Reason, err error) {
	err = NewClient(p, Listener{
		Event:  func(e Event) { names, reasons = append(names, e.Name), append(reasons, e.Shutdown()) },
		Status: func(status string) { names = append(names, "status "+status) },
	}).Listen()
	return names, reasons, err
}

func TestListen(t *testing.T) {
	t.Run("it asks for events and hands them on in order, each with its reason", func(t *testing.T) {
		p := &peer{Reader: strings.NewReader(greeting + answer +
			`{"timestamp":{"seconds":1,"microseconds":2},"event":"POWERDOWN"}` + "\r\n" +
			`{"timestamp":{"seconds":1,"microseconds":3},"event":"SHUTDOWN","data":{"guest":true,"reason":"guest-reset"}}` + "\r\n")}
		names, reasons, err := listen(p)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff([]string{"POWERDOWN", "SHUTDOWN"}, names); d != "" {
			t.Error(d)
		}
		if d := cmp.Diff([]Reason{"", GuestReset}, reasons); d != "" {
			t.Error(d)
		}
		if got := p.sent.String(); got != `{"execute":"qmp_capabilities"}`+"\n"+`{"execute":"query-status"}`+"\n" {
			t.Errorf("sent %q", got)
		}
	})
	t.Run("a shutdown whose data cannot be read has no reason", func(t *testing.T) {
		_, reasons, err := listen(&peer{Reader: strings.NewReader(greeting + `{"event":"SHUTDOWN","data":[]}` + "\n")})
		if err != nil || len(reasons) != 1 || reasons[0] != "" {
			t.Errorf("got %q, %v", reasons, err)
		}
	})
	for _, c := range []struct{ name, sent, want string }{
		{"a peer that closes without a greeting", "", "before a greeting"},
		{"a peer that is not QEMU", "SSH-2.0-OpenSSH\n", "invalid character"},
		{"a peer that begins with an event", `{"event":"SHUTDOWN","data":{"reason":"guest-shutdown"}}` + "\n", "not QEMU"},
		{"a second greeting", greeting + greeting, "not QEMU"},
		{"a line without an end", greeting + strings.Repeat(" ", maxLine+1), "too long"},
		{"a refusal", greeting + `{"error":{"class":"CommandNotFound","desc":"no such thing"}}` + "\n", "qmp: no such thing"},
	} {
		t.Run(c.name+" is an error", func(t *testing.T) {
			names, _, err := listen(&peer{Reader: strings.NewReader(c.sent)})
			if err == nil || !strings.Contains(err.Error(), c.want) || len(names) > 0 {
				t.Errorf("got events %q and error %v, want %q", names, err, c.want)
			}
		})
	}
	t.Run("a peer that cannot be written to is an error", func(t *testing.T) {
		gone := errors.New("gone")
		if _, _, err := listen(&peer{Reader: strings.NewReader(greeting), refuse: gone}); !errors.Is(err, gone) {
			t.Errorf("got %v", err)
		}
	})
}

func TestHalt(t *testing.T) {
	p := &peer{Reader: strings.NewReader(greeting + answer + `{"return":{"running":false,"singlestep":false,"status":"io-error"}}` + "\n" +
		`{"event":"BLOCK_IO_ERROR","data":{"device":"disk1","operation":"write","action":"stop","nospace":true,"reason":"No space left on device"}}` + "\n" +
		`{"event":"BLOCK_IO_ERROR","data":{"device":"disk1","operation":"write","action":"report","nospace":true}}` + "\n" +
		`{"event":"BLOCK_IO_ERROR","data":{"device":"disk1","operation":"read","action":"stop","nospace":false}}` + "\n" +
		`{"event":"RESUME"}` + "\n")}
	var got []string
	err := NewClient(p, Listener{
		Event: func(e Event) {
			if e.NoSpace() {
				e.Name = "no space"
			}
			got = append(got, e.Name)
		},
		Status: func(status string) { got = append(got, status) },
	}).Listen()
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{StatusIOError, "no space", "BLOCK_IO_ERROR", "BLOCK_IO_ERROR", Resumed}, got); d != "" {
		t.Error(d)
	}
	p.sent.Reset()
	if err := Cont(p); err != nil || p.sent.String() != `{"execute":"cont"}`+"\n" {
		t.Errorf("sent %q, %v", p.sent.String(), err)
	}
}
