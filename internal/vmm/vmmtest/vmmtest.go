// Package vmmtest is the conformance suite of package vmm's contract: [Run] states each sentence of it as a subtest.
// Every driver runs it, the fake too.
//
// The guest of the suite serves its end of the control channel with a protocol of lines:
//
//	echo TEXT    answers TEXT
//	print TEXT   prints TEXT on the console, answers "ok"
//	keep TEXT    keeps TEXT in memory, answers "ok"
//	kept         answers what was kept last
//	power-off    powers off
//	reboot       reboots
//	panic        makes the kernel panic
//
// It serves one connection after the other, and survives a connection's end. [Guest] is that protocol for guests in memory.
package vmmtest

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/vmm"
)

// Harness is what the suite needs to know of a driver.
type Harness struct {
	// New returns a fresh driver value on the same host. A second one is the daemon after its restart.
	New func(t *testing.T) vmm.Driver
	// Spec returns a spec of a new VM with directories of its own and the suite's guest.
	Spec func(t *testing.T) vmm.Spec
	// Crash ends the machine's process from outside, as `kill -9` does.
	Crash func(t *testing.T, h vmm.Handle)
	// Left lists what there still is of a machine outside its directories: process, cgroup. It must be empty after the end.
	Left func(t *testing.T, h vmm.Handle) []string
	// Patience bounds every wait for a guest. Guests that are emulated on a shared machine need minutes.
	Patience time.Duration
}

// Run runs the suite.
func Run(t *testing.T, h Harness) {
	for _, group := range [][]sentence{startSentences, channelSentences, adoptSentences, endSentences, pauseSentences(h.New(t)), saveSentences(h.New(t))} {
		for _, s := range group {
			t.Run(s.name, func(t *testing.T) { s.test(t, h) })
		}
	}
}

// sentence is one statement of the contract, and its proof.
type sentence struct {
	name string
	test func(t *testing.T, h Harness)
}

// Guest is the memory of the suite's guest.
type Guest struct{ kept atomic.Value }

// Guests are the guests of machines whose guest is a function.
type Guests struct {
	mu   sync.Mutex // guards the rest: machines of parallel tests start
	byVM map[banger.VMID]*Guest
	file map[string]*Guest // by the file that the memory is in
}

// Of returns the guest of a machine: one that was restored begins with the memory of the one that was saved.
func (all *Guests) Of(spec vmm.Spec) *Guest {
	all.mu.Lock()
	defer all.mu.Unlock()
	if g := all.byVM[spec.ID]; g != nil {
		return g
	}
	if all.byVM == nil {
		all.byVM, all.file = map[banger.VMID]*Guest{}, map[string]*Guest{}
	}
	g := &Guest{}
	if spec.Restore != nil {
		g.kept.Store(all.file[spec.Restore.Memory].kept.Load())
	}
	if all.byVM[spec.ID] = g; spec.Memory != "" {
		all.file[spec.Memory] = g
	}
	return g
}

// Serve answers the lines of conn until conn or ctx ends, for drivers whose guest is a function too. print writes to the guest's
// console; end ends the guest: "power-off", "reboot" or "panic".
func (g *Guest) Serve(ctx context.Context, conn net.Conn, print func(text string), end func(how string)) {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		verb, arg, _ := strings.Cut(lines.Text(), " ")
		switch verb {
		case "echo":
			fmt.Fprintln(conn, arg) // a host that has gone is seen by Scan
		case "print":
			print(arg + "\n")
			fmt.Fprintln(conn, "ok")
		case "keep":
			g.kept.Store(arg)
			fmt.Fprintln(conn, "ok")
		case "kept":
			fmt.Fprintln(conn, g.kept.Load())
		default:
			end(verb)
		}
	}
}

// running is a started machine and what it was started from.
type running struct {
	vmm.Machine
	driver vmm.Driver
	spec   vmm.Spec
}

// start starts a machine that is killed when the test ends.
func start(t *testing.T, h Harness) running {
	t.Helper()
	return startSpec(t, h, h.Spec(t))
}

func startSpec(t *testing.T, h Harness, spec vmm.Spec) running {
	t.Helper()
	d := h.New(t)
	ctx, cancel := context.WithCancel(t.Context())
	m, err := d.Start(ctx, spec)
	cancel() // a machine does not end with the context of its start
	if err != nil {
		t.Fatalf("start: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), h.Patience)
		defer cancel()
		if err := m.Kill(ctx); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	return running{Machine: m, driver: d, spec: spec}
}

// patiently returns a context that ends with the test or with the harness's patience.
func (h Harness) patiently(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), h.Patience)
	t.Cleanup(cancel)
	return ctx
}

// dial opens m's control channel; reads and writes on it have a deadline.
func (h Harness) dial(t *testing.T, m vmm.Machine) *bufio.ReadWriter {
	t.Helper()
	conn, err := m.DialAgent(h.patiently(t))
	if err != nil {
		t.Fatalf("dial agent: %v", err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(h.Patience)); err != nil {
		t.Fatalf("set deadline: %v", err)
	}
	return bufio.NewReadWriter(bufio.NewReader(conn), bufio.NewWriter(conn))
}

// ask sends one line and returns the answer.
func ask(c *bufio.ReadWriter, line string) (string, error) {
	if err := tell(c, line); err != nil {
		return "", err
	}
	answer, err := c.ReadString('\n')
	return strings.TrimSuffix(answer, "\n"), err
}

func tell(c *bufio.ReadWriter, line string) error {
	if _, err := c.WriteString(line + "\n"); err != nil {
		return err
	}
	return c.Flush()
}

// wantEcho proves that the guest lives and hears us.
func wantEcho(t *testing.T, c *bufio.ReadWriter, text string) {
	t.Helper()
	if got, err := ask(c, "echo "+text); err != nil || got != text {
		t.Fatalf("echo %q: got %q, %v", text, got, err)
	}
}

// wantEnd waits for the machine's end and for nothing to be left.
func wantEnd(t *testing.T, h Harness, m running) vmm.Exit {
	t.Helper()
	select {
	case <-m.Exited():
	case <-h.patiently(t).Done():
		t.Fatalf("machine did not end within %v", h.Patience)
	}
	wantNothing(t, h, m.spec, m.Handle())
	e := m.Exit()
	if e.At.IsZero() || e.Reason == "" {
		t.Errorf("exit %+v lacks a time or a reason", e)
	}
	return e
}

func wantNothing(t *testing.T, h Harness, spec vmm.Spec, handle vmm.Handle) {
	t.Helper()
	if left := entries(t, spec.RunDir); len(left) > 0 {
		t.Errorf("left in the run directory: %q", left)
	}
	if handle.PID != 0 {
		if left := h.Left(t, handle); len(left) > 0 {
			t.Errorf("left on the host: %q", left)
		}
	}
}

func entries(t *testing.T, dir string) []string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

func wantKind(t *testing.T, err error, k errkind.Kind) {
	t.Helper()
	if err == nil || errkind.Of(err) != k {
		t.Fatalf("got error %v of kind %q, want kind %q", err, errkind.Of(err), k)
	}
}

func (h Harness) kill(t *testing.T, m vmm.Machine) {
	t.Helper()
	if err := m.Kill(h.patiently(t)); err != nil {
		t.Fatalf("kill: %v", err)
	}
}

// throughJSON is what storing a handle does to it.
func throughJSON(t *testing.T, h vmm.Handle) vmm.Handle {
	t.Helper()
	b, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	var back vmm.Handle
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	return back
}

var startSentences = []sentence{
	{"the driver tells its name and features", func(t *testing.T, h Harness) {
		d := h.New(t)
		f := d.Features()
		if d.Name() == "" || f.Engine == "" || f.MinMemMiB <= 0 || len(f.Formats) == 0 {
			t.Errorf("name %q, features %+v: something is missing", d.Name(), f)
		}
		if !slices.Contains([]string{vmm.AccelKVM, vmm.AccelTCG}, f.Accel) {
			t.Errorf("accelerator %q", f.Accel)
		}
	}},
	{"a good spec has no problems", func(t *testing.T, h Harness) {
		if p := h.New(t).Check(t.Context(), h.Spec(t)); len(p) > 0 {
			t.Errorf("problems: %+v", p)
		}
	}},
	{"all problems of a spec are reported at once, each with a fix", func(t *testing.T, h Harness) {
		d, spec := h.New(t), h.Spec(t)
		missing := filepath.Join(t.TempDir(), "missing")
		spec.Kernel, spec.Initrd, spec.MemMiB = missing+"-kernel", missing+"-initrd", 1
		spec.Disks = append(spec.Disks, vmm.Disk{Path: missing + "-disk", Format: "raw"})
		problems := d.Check(t.Context(), spec)
		if len(problems) != 4 {
			t.Errorf("%d problems, want 4: %+v", len(problems), problems)
		}
		for _, p := range problems {
			if p.Detail == "" || p.Fix == "" {
				t.Errorf("problem %+v lacks a detail or a fix", p)
			}
		}
	}},
	{"a machine starts, answers, and outlives the context of its start", func(t *testing.T, h Harness) {
		m := start(t, h)
		wantEcho(t, h.dial(t, m), "hello")
		select {
		case <-m.Exited():
			t.Errorf("ended: %+v", m.Exit())
		default:
		}
		if e := m.Exit(); e != (vmm.Exit{}) {
			t.Errorf("exit of a live machine is %+v", e)
		}
	}},
	{"the handle names driver, VM, engine, directories and a live process", func(t *testing.T, h Harness) {
		m := start(t, h)
		got := m.Handle()
		want := vmm.Handle{
			Driver: m.driver.Name(), ID: m.spec.ID, PID: got.PID, StartTime: got.StartTime, Dir: m.spec.Dir, RunDir: m.spec.RunDir,
			Engine: m.driver.Features().Engine, Extra: got.Extra,
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("handle %+v, want %+v", got, want)
		}
		if got.PID <= 1 || got.StartTime == 0 || len(h.Left(t, got)) == 0 {
			t.Errorf("handle %+v names no live process", got)
		}
	}},
	{"a start that fails leaves nothing", func(t *testing.T, h Harness) {
		spec := h.Spec(t)
		spec.Disks = append(spec.Disks, vmm.Disk{Path: filepath.Join(t.TempDir(), "missing"), Format: "raw"})
		m, err := h.New(t).Start(h.patiently(t), spec)
		if err == nil {
			h.kill(t, m)
			t.Fatal("started without its disk")
		}
		wantNothing(t, h, spec, vmm.Handle{})
	}},
	{"a start after one that failed succeeds", func(t *testing.T, h Harness) {
		spec := h.Spec(t)
		broken := spec
		broken.Disks = []vmm.Disk{{Path: filepath.Join(t.TempDir(), "missing"), Format: "raw"}}
		if m, err := h.New(t).Start(h.patiently(t), broken); err == nil {
			h.kill(t, m)
			t.Fatal("started without its disk")
		}
		wantEcho(t, h.dial(t, startSpec(t, h, spec)), "again")
	}},
	{"a start whose context ends, at any moment, leaves nothing", testStartCanceled},
	{"a run directory whose machine is alive is refused as busy", func(t *testing.T, h Harness) {
		m := start(t, h)
		_, err := h.New(t).Start(h.patiently(t), m.spec)
		wantKind(t, err, api.KindBusy)
		wantEcho(t, h.dial(t, m), "unharmed")
	}},
	{"sockets of a machine that is gone do not hinder a start", func(t *testing.T, h Harness) {
		m := start(t, h)
		names := entries(t, m.spec.RunDir)
		h.kill(t, m)
		for _, name := range names {
			stale(t, filepath.Join(m.spec.RunDir, name))
		}
		wantEcho(t, h.dial(t, startSpec(t, h, m.spec)), "fresh")
	}},
	{"machines live side by side, and one's end is not the other's", func(t *testing.T, h Harness) {
		one, two := start(t, h), start(t, h)
		c := h.dial(t, two)
		h.kill(t, one)
		wantEcho(t, c, "still here")
	}},
	{"console and messages are logged in the VM's directory", func(t *testing.T, h Harness) {
		m := start(t, h)
		if got, err := ask(h.dial(t, m), "print a line of the guest"); err != nil || got != "ok" {
			t.Fatalf("print: got %q, %v", got, err)
		}
		h.kill(t, m)
		<-m.Exited() // the log is complete from here
		b, err := os.ReadFile(filepath.Join(m.spec.Dir, vmm.ConsoleLog))
		if err != nil || !strings.Contains(string(b), "a line of the guest") {
			t.Errorf("console log %q, %v", b, err)
		}
		if _, err := os.Stat(filepath.Join(m.spec.Dir, vmm.VMMLog)); err != nil {
			t.Error(err)
		}
	}},
}

// stale leaves a socket at path that nobody listens on.
func stale(t *testing.T, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
}

// testStartCanceled ends the context at its first use, its second, and so on, until a start gets through.
func testStartCanceled(t *testing.T, h Harness) {
	const enough = 100
	for n := range enough {
		spec := h.Spec(t)
		ctx := newCountdown(t, n)
		m, err := h.New(t).Start(ctx, spec)
		if err != nil {
			wantKind(t, err, api.KindCanceled)
			wantNothing(t, h, spec, vmm.Handle{})
			continue
		}
		if n == 0 {
			t.Error("started under a context that had ended")
		}
		h.kill(t, m)
		wantNothing(t, h, spec, m.Handle())
		if ctx.Err() == nil {
			return // got through
		}
	}
	t.Errorf("a start used its context %d times", enough)
}

// wantEOF waits for the channel's end.
func wantEOF(t *testing.T, c io.Reader) {
	t.Helper()
	var b [1]byte
	if n, err := c.Read(b[:]); err == nil || os.IsTimeout(err) {
		t.Errorf("read %d bytes, %v; want the end of the connection", n, err)
	}
}
