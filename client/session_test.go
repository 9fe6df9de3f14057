package client_test

import (
	"io"
	"testing"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/frame"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/client"
	"github.com/banger-vm/banger/internal/cli/fakedaemon"
)

var _ io.ReadWriteCloser = (*client.SessionStream)(nil)

func TestSessionStream(t *testing.T) {
	d := fakedaemon.Start(t)
	record := func(c *fakedaemon.Call, at int64, stream frame.Type, text string) {
		c.Frames().Write(frame.Output, frame.Record{Offset: at, Time: time.Now(), Stream: stream, Data: []byte(text)}.Append(nil))
	}
	attach := func(h func(c *fakedaemon.Call)) *client.SessionStream {
		t.Helper()
		d.On(api.MethodSessionAttach, func(c *fakedaemon.Call) {
			c.Reply(guestapi.SessionAttached{Session: guestapi.Session{Name: "s"}, From: 5, StdinWindow: 4})
			h(c)
		})
		s, err := dial(t, d).SessionAttach(t.Context(), api.SessionAttach{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	t.Run("is a reader of both outputs, a writer of input, and waits for the end", func(t *testing.T) {
		s := attach(func(c *fakedaemon.Call) {
			record(c, 5, frame.Stdout, "one ")
			record(c, 9, frame.Stderr, "two")
			var in string
			for fr := frame.NewReader(c); ; {
				ft, p, err := fr.Next()
				if err != nil || ft != frame.Stdin {
					record(c, 12, frame.Stdout, " "+in+" "+ft.String())
					c.Exit(frame.ExitStatus{Code: 3})
					return
				}
				in += string(p)
				c.Frames().WriteJSON(frame.StdinTaken, len(p))
			}
		})
		go func() {
			io.WriteString(s, "more than a window")
			s.CloseWrite()
		}()
		out, err := io.ReadAll(s)
		if err != nil || string(out) != "one two more than a window stdin-eof" {
			t.Errorf("%q, %v", out, err)
		}
		if st, err := s.Wait(); err != nil || st.Code != 3 || s.Session().Name != "s" {
			t.Errorf("%+v, %v", st, err)
		}
		if _, err := s.Write([]byte("more than what is left of it")); err != io.ErrClosedPipe {
			t.Errorf("a write after the end: %v", err)
		}
	})
	t.Run("a cut connection leaves the offset to go on from", func(t *testing.T) {
		s := attach(func(c *fakedaemon.Call) { record(c, 5, frame.Stdout, "part") })
		out, err := io.ReadAll(s)
		if kindOf(err) != api.KindUnavailable || string(out) != "part" || s.Offset() != 9 {
			t.Errorf("%q, %v, offset %d", out, err, s.Offset())
		}
	})
	t.Run("one that was detached knows why", func(t *testing.T) {
		s := attach(func(c *fakedaemon.Call) { c.Frames().Write(frame.Detached, []byte("taken over")) })
		if _, err := s.Wait(); kindOf(err) != api.KindBusy || err.Error() != "taken over" {
			t.Error(err)
		}
	})
}
