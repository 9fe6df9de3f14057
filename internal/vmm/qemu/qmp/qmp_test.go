package qmp

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

const greeting = `{"QMP":{"version":{"qemu":{"micro":22,"minor":2,"major":7},"package":"Debian"},"capabilities":["oob"]}}`

// peer is QEMU's end of a connection. script is called for each command, with its name and id, and sends lines.
func peer(t *testing.T, script func(name string, id int64, send func(format string, args ...any)) bool) net.Conn {
	t.Helper()
	ours, theirs := net.Pipe()
	t.Cleanup(func() { ours.Close() })
	go func() {
		defer theirs.Close()
		send := func(format string, args ...any) { fmt.Fprintf(theirs, format+"\r\n", args...) } // as QEMU ends its lines
		send("%s", greeting)
		for lines := bufio.NewScanner(theirs); lines.Scan(); {
			var command struct {
				Execute string
				ID      int64
			}
			if err := json.Unmarshal(lines.Bytes(), &command); err != nil {
				t.Errorf("command %q: %v", lines.Text(), err)
				return
			}
			if command.Execute == "qmp_capabilities" {
				send(`{"return":{},"id":%d}`, command.ID)
			} else if !script(command.Execute, command.ID, send) {
				return
			}
		}
	}()
	return ours
}

func ignore(Event) {}

func TestCommands(t *testing.T) {
	t.Run("commands are sent by their names and their answers decoded", func(t *testing.T) {
		var mu sync.Mutex
		var names []string
		c, err := Open(t.Context(), peer(t, func(name string, id int64, send func(string, ...any)) bool {
			mu.Lock()
			defer mu.Unlock()
			names = append(names, name)
			if name == "query-status" {
				send(`{"return":{"status":"running","running":true},"id":%d}`, id)
			} else {
				send(`{"return":{},"id":%d}`, id)
			}
			return true
		}), ignore)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if status, err := c.Status(t.Context()); status != "running" || err != nil {
			t.Errorf("status %q, %v", status, err)
		}
		for _, command := range []func(context.Context) error{c.Stop, c.Cont, c.PowerDown, c.Quit} {
			if err := command(t.Context()); err != nil {
				t.Error(err)
			}
		}
		mu.Lock()
		defer mu.Unlock()
		if got := strings.Join(names, " "); got != "query-status stop cont system_powerdown quit" {
			t.Errorf("commands: %s", got)
		}
	})
	t.Run("a refusal is an Error with QEMU's words", func(t *testing.T) {
		c, err := Open(t.Context(), peer(t, func(_ string, id int64, send func(string, ...any)) bool {
			send(`{"error":{"class":"GenericError","desc":"no such thing"},"id":%d}`, id)
			return true
		}), ignore)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		var refusal *Error
		if err := c.Stop(t.Context()); !errors.As(err, &refusal) || refusal.Class != "GenericError" || err.Error() != "qmp stop: no such thing" {
			t.Errorf("got %v", err)
		}
	})
	t.Run("answers that come late and in another order reach their callers", func(t *testing.T) {
		var held int64
		c, err := Open(t.Context(), peer(t, func(name string, id int64, send func(string, ...any)) bool {
			if held == 0 {
				held = id
				return true
			}
			send(`{"error":{"class":"GenericError","desc":"second"},"id":%d}`, id)
			send(`{"error":{"class":"GenericError","desc":"first"},"id":%d}`, held)
			return true
		}), ignore)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		texts := make(chan string, 2)
		var calls sync.WaitGroup
		for range 2 {
			calls.Go(func() { texts <- c.Cont(t.Context()).Error() })
		}
		calls.Wait()
		if a, b := <-texts, <-texts; a == b {
			t.Errorf("both callers got %q", a)
		}
	})
	t.Run("a command whose context ends returns, and the next one works", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		c, err := Open(t.Context(), peer(t, func(name string, id int64, send func(string, ...any)) bool {
			if name == "stop" {
				cancel() // and no answer
			} else {
				send(`{"return":{},"id":%d}`, id)
			}
			return true
		}), ignore)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.Stop(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		if err := c.Cont(t.Context()); err != nil {
			t.Error(err)
		}
	})
	t.Run("a connection that ends in a command makes it unavailable", func(t *testing.T) {
		c, err := Open(t.Context(), peer(t, func(string, int64, func(string, ...any)) bool { return false }), ignore)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for range 2 {
			if err := c.Quit(t.Context()); !errkind.Is(err, api.KindUnavailable) {
				t.Errorf("got %v of kind %s", err, errkind.Of(err))
			}
		}
	})
}

func TestEvents(t *testing.T) {
	t.Run("events come in order, among answers, and all before the end", func(t *testing.T) {
		var got []Event
		c, err := Open(t.Context(), peer(t, func(_ string, id int64, send func(string, ...any)) bool {
			send(`{"timestamp":{"seconds":1,"microseconds":2},"event":"POWERDOWN"}`)
			send(`{"return":{},"id":%d}`, id)
			send(`{"timestamp":{"seconds":1,"microseconds":3},"event":"SHUTDOWN","data":{"guest":true,"reason":"guest-shutdown"}}`)
			return false
		}), func(e Event) { got = append(got, e) })
		if err != nil {
			t.Fatal(err)
		}
		if err := c.PowerDown(t.Context()); err != nil {
			t.Fatal(err)
		}
		<-c.Done()
		if len(got) != 2 || got[0].Name != "POWERDOWN" {
			t.Fatalf("events %+v", got)
		}
		if reason, ok := got[1].Shutdown(); !ok || reason != ReasonGuestShutdown {
			t.Errorf("reason %q, %v", reason, ok)
		}
		if _, ok := got[0].Shutdown(); ok {
			t.Error("POWERDOWN is taken for a shutdown")
		}
	})
}

func TestOpen(t *testing.T) {
	raw := func(text string) net.Conn {
		ours, theirs := net.Pipe()
		go func() {
			fmt.Fprint(theirs, text)
			theirs.Close()
		}()
		return ours
	}
	t.Run("a peer that closes without a greeting is unavailable", func(t *testing.T) {
		if _, err := Open(t.Context(), raw(""), ignore); !errkind.Is(err, api.KindUnavailable) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a peer that is not QEMU is refused", func(t *testing.T) {
		if _, err := Open(t.Context(), raw("SSH-2.0-OpenSSH\n"), ignore); err == nil || !strings.Contains(err.Error(), "not QMP") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a second greeting is refused", func(t *testing.T) {
		if _, err := Open(t.Context(), raw(greeting+"\n"+greeting+"\n"), ignore); err == nil {
			t.Error("accepted")
		}
	})
	t.Run("a peer that says nothing is given up with the context", func(t *testing.T) {
		ours, theirs := net.Pipe()
		defer theirs.Close()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := Open(ctx, ours, ignore); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}
