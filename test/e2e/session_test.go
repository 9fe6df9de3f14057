package e2e

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"testing"
)

// TestSessions ends clients and daemons while sessions write.
func TestSessions(t *testing.T) {
	h := guests(t)
	h.must(t, "vm", "create", "--start", "--name", "counter", "--memory", "256M")
	defer h.must(t, "vm", "delete", "--force", "counter")
	var want strings.Builder
	for i := range 40000 {
		fmt.Fprintln(&want, i+1)
	}
	const count = "seq 1 20000; read x; seq 20001 40000"

	// half attaches to a session that counts, and returns when it has seen what comes before the session waits.
	half := func(t *testing.T, name string) (end func() string, pid int) {
		h.must(t, "vm", "session", "start", "counter", "--name", name, "--stdin", "pipe", "--", "sh", "-c", count)
		cmd := h.command("vm", "session", "attach", "counter", name, "--read-only", "--replay", "1M")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		var errs strings.Builder
		cmd.Stderr = &errs
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var seen strings.Builder
		r := bufio.NewReader(out)
		for !strings.HasSuffix(seen.String(), "\n20000\n") {
			line, err := r.ReadString('\n')
			if err != nil {
				t.Fatalf("%v after %d bytes; %s", err, seen.Len(), &errs)
			}
			seen.WriteString(line)
		}
		return func() string {
			io.Copy(&seen, r) //nolint:errcheck // what is missing is told
			if err := cmd.Wait(); err != nil {
				t.Logf("attach: %v: %s", err, &errs)
			}
			return seen.String()
		}, cmd.Process.Pid
	}
	goOn := func(t *testing.T, name string) { h.must(t, "vm", "session", "send", "counter", name, "--key", "Enter") }

	t.Run("an attachment misses nothing when the daemon is killed", func(t *testing.T) {
		end, _ := half(t, "daemon")
		kill9(t, h.daemonPID(t))
		goOn(t, "daemon")
		if got := end(); got != want.String() {
			t.Errorf("%d bytes of %d", len(got), want.Len())
		}
		h.must(t, "vm", "session", "wait", "counter", "daemon")
	})
	t.Run("an attachment outlasts a pause of its VM", func(t *testing.T) {
		end, _ := half(t, "pause")
		h.must(t, "vm", "pause", "counter")
		h.must(t, "vm", "resume", "counter")
		goOn(t, "pause")
		if got := end(); got != want.String() {
			t.Errorf("%d bytes of %d", len(got), want.Len())
		}
	})
	t.Run("a session goes on when its client is killed, and another has all of it", func(t *testing.T) {
		end, pid := half(t, "client")
		kill9(t, pid)
		end()
		eventually(t, "nobody attached", func() bool {
			return h.must(t, "vm", "session", "show", "counter", "client", "--format", "{{.Attached}}") == "0"
		})
		goOn(t, "client")
		h.must(t, "vm", "session", "wait", "counter", "client")
		if got := h.must(t, "vm", "session", "logs", "counter", "client") + "\n"; got != want.String() {
			t.Errorf("%d bytes of %d", len(got), want.Len())
		}
	})
}
