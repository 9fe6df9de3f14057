// Package terminal joins a terminal in a browser, over a WebSocket (RFC 6455), to a shell in a guest: what vm.exec gives the
// command line, with a pseudo-terminal.
//
// From the browser, binary messages are what was typed, and text messages are the terminal's size, {"rows":R,"cols":C}, the first
// of which begins the shell. To it, binary messages are what the shell printed; one text message, {"end":TEXT}, is the last.
package terminal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/coder/websocket"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/frame"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/client"
	"github.com/banger-vm/banger/internal/errkind"
)

// Handler serves terminals. Who may ask, and from where, has been checked before. connect returns a client of this daemon; a
// terminal ends with stopped.
func Handler(stopped context.Context, connect func(context.Context) (*client.Client, error), log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := websocket.Accept(w, r, nil) // checks Origin against Host once more
		if err != nil {
			log.Debug("terminal refused", "err", err)
			return
		}
		defer ws.CloseNow()
		ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
		defer cancel()
		defer context.AfterFunc(stopped, cancel)()
		end := "the shell has ended"
		if err := run(ctx, ws, connect, r.PathValue("ref")); err != nil {
			log.Debug("terminal ended", "vm", r.PathValue("ref"), "err", err)
			end = errkind.Wire(err).Message
		}
		bye(ctx, ws, end)
	})
}

// byeTimeout is how long a browser may take to hear the last message.
const byeTimeout = 2 * time.Second

func bye(ctx context.Context, ws *websocket.Conn, end string) {
	data, err := json.Marshal(map[string]string{"end": end})
	if err != nil {
		return // it is a string
	}
	ctx, cancel := context.WithTimeout(ctx, byeTimeout)
	defer cancel()
	if ws.Write(ctx, websocket.MessageText, data) == nil {
		ws.Close(websocket.StatusNormalClosure, "") //nolint:errcheck // it is the end in any case
	}
}

func run(ctx context.Context, ws *websocket.Conn, connect func(context.Context) (*client.Client, error), ref string) error {
	// The shell's context is not the WebSocket's: a read whose context ends takes the connection with it, and the last message.
	shell, cancel := context.WithCancel(ctx)
	defer cancel()
	kind, first, err := ws.Read(ctx)
	if err != nil {
		return err
	}
	var size frame.WindowSize
	if kind != websocket.MessageText || json.Unmarshal(first, &size) != nil {
		return errkind.New(api.KindInvalid, "the first message is no size of a terminal")
	}
	c, err := connect(ctx)
	if err != nil {
		return err
	}
	in, typed := io.Pipe()
	defer in.Close()
	proc, err := c.VMExec(shell, api.VMExec{Ref: api.Ref{Ref: ref}, ExecSpec: guestapi.ExecSpec{
		TTY: true, Size: &size, Login: true, Env: []string{"TERM=xterm-256color"},
	}}, client.Stdio{In: in, Out: screen{ctx, ws}})
	if err != nil {
		return err
	}
	go func() {
		defer cancel() // the browser has gone: hang up
		typed.CloseWithError(listen(ctx, ws, proc, typed))
	}()
	st, err := proc.Wait()
	switch {
	case err != nil:
		return err
	case st.Error != "":
		return errors.New(st.Error)
	case st.Code != 0:
		return fmt.Errorf("the shell ended with status %d", st.Code)
	}
	return nil
}

// listen passes on what the browser sends until it goes.
func listen(ctx context.Context, ws *websocket.Conn, proc *client.Process, typed io.Writer) error {
	for {
		kind, data, err := ws.Read(ctx)
		if err != nil {
			return err
		}
		if kind == websocket.MessageBinary {
			if _, err := typed.Write(data); err != nil {
				return err
			}
			continue
		}
		var size frame.WindowSize
		if err := json.Unmarshal(data, &size); err != nil {
			return err
		}
		if err := proc.Resize(size); err != nil {
			return err
		}
	}
}

// screen is where a shell's output goes.
type screen struct {
	ctx context.Context
	ws  *websocket.Conn
}

func (s screen) Write(p []byte) (int, error) {
	return len(p), s.ws.Write(s.ctx, websocket.MessageBinary, p)
}
