package cli_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/cli"
	"github.com/banger-vm/banger/internal/cli/app"
	"github.com/banger-vm/banger/internal/cli/fakedaemon"
	"github.com/banger-vm/banger/internal/config"
)

// used are the commands and flags that the tests have run; TestMain compares them with those that exist.
var used = struct {
	mu  sync.Mutex
	set map[string]bool
}{set: map[string]bool{}}

func TestMain(m *testing.M) {
	if os.Getenv("BANGER_TEST_DAEMON") != "" {
		os.Exit(testDaemon())
	}
	flag.Parse()
	code := m.Run()
	if code == 0 && flag.Lookup("test.run").Value.String() == "" {
		for _, name := range untested() {
			fmt.Println("FAIL: no test runs", name)
			code = 1
		}
	}
	os.Exit(code)
}

func untested() []string {
	var missing []string
	walk(cli.New(testApp(io.Discard, io.Discard)), func(cmd *cobra.Command) {
		if cmd.HasSubCommands() && cmd.Name() != "build" || !cmd.Runnable() || cmd.Parent() == cmd.Root() && twin(cmd) {
			return
		}
		if !used.set[cmd.CommandPath()] {
			missing = append(missing, cmd.CommandPath())
		}
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if name := cmd.CommandPath() + " --" + f.Name; f.Name != "help" && !used.set[name] {
				missing = append(missing, name)
			}
		})
	})
	slices.Sort(missing)
	return missing
}

// twin reports whether cmd is the short form of a verb of `vm`.
func twin(cmd *cobra.Command) bool {
	return slices.Contains([]string{"run", "ps", "exec", "ssh", "cp", "delete"}, cmd.Name())
}

func walk(cmd *cobra.Command, visit func(*cobra.Command)) {
	visit(cmd)
	for _, sub := range cmd.Commands() {
		walk(sub, visit)
	}
}

func testApp(out, errOut io.Writer) *app.App {
	a := app.New("v1.2.3")
	a.Streams = app.Streams{In: strings.NewReader(""), Out: out, Err: errOut}
	a.Signals = app.NewInterrupts(func(code int) { panic(fmt.Sprint("a second signal ended the test: ", code)) })
	a.LookupEnv = func(string) (string, bool) { return "", false }
	a.Paths = func() (config.Paths, error) { return config.FindPaths(a.LookupEnv) }
	return a
}

// cmdline is one command line to run in this process.
type cmdline struct {
	t      *testing.T
	app    *app.App
	out    bytes.Buffer
	err    bytes.Buffer
	stdout string
	stderr string
	code   int
}

// banger returns a command line on the daemon d, or on the root directory of none.
func banger(t *testing.T, d *fakedaemon.Daemon) *cmdline {
	t.Helper()
	c := &cmdline{t: t}
	c.app = testApp(&c.out, &c.err)
	env := map[string]string{"BANGER_NO_START": "1"}
	if d != nil {
		env["BANGER_ROOT"] = d.Root
	}
	c.env(env)
	c.app.Replace = func([]string, []string) error { t.Error("another program was executed"); return nil }
	return c
}

func (c *cmdline) env(more map[string]string) *cmdline {
	all := maps.Clone(more)
	before := c.app.LookupEnv
	c.app.LookupEnv = func(name string) (string, bool) {
		if v, ok := all[name]; ok {
			return v, true
		}
		return before(name)
	}
	return c
}

func (c *cmdline) stdin(s string) *cmdline { c.app.In = strings.NewReader(s); return c }

// run runs args and returns c with what came of them.
func (c *cmdline) run(args ...string) *cmdline {
	c.t.Helper()
	if c.code = cli.Run(context.Background(), c.app, args); c.code != 64 { // a refused command line has tested no flag
		note(c.app, args)
	}
	c.stdout, c.stderr = c.out.String(), c.err.String()
	c.out.Reset()
	c.err.Reset()
	return c
}

// ok runs args and wants exit status 0.
func (c *cmdline) ok(args ...string) *cmdline {
	c.t.Helper()
	if c.run(args...); c.code != 0 {
		c.t.Fatalf("%q: exit status %d\nstdout: %s\nstderr: %s", args, c.code, c.stdout, c.stderr)
	}
	return c
}

// fails runs args and wants this exit status and these words on standard error, each "banger: " line with a "hint: " line
// if hint is set.
func (c *cmdline) fails(code int, words string, args ...string) *cmdline {
	c.t.Helper()
	c.run(args...)
	if c.code != code || !strings.Contains(c.stderr, words) || !strings.Contains(c.stderr, "banger: ") {
		c.t.Errorf("%q: exit status %d, want %d and %q\nstderr: %s", args, c.code, code, words, c.stderr)
	}
	return c
}

// note remembers which command and flags args name.
func note(a *app.App, args []string) {
	root := cli.New(a)
	cmd, rest, err := root.Find(args)
	if err != nil {
		return
	}
	path := cmd.CommandPath()
	if cmd.Parent() == root && twin(cmd) {
		name := cmd.Name()
		if name == "ps" {
			name = "list"
		}
		path = "banger vm " + name
	}
	cmd.ParseFlags(rest)
	used.mu.Lock()
	defer used.mu.Unlock()
	used.set[path] = true
	cmd.Flags().Visit(func(f *pflag.Flag) { used.set[path+" --"+f.Name] = true })
}

// signal makes the command get s, as from the terminal.
func (c *cmdline) signal(s syscall.Signal) { c.app.Signals.Send(s) }

// operation scripts an operation that succeeds after two stages and makes ref.
func operation(d *fakedaemon.Daemon, begin, ref string) {
	d.Result(begin, api.OperationRef{ID: "0123456789ab"})
	d.On(api.MethodOperationWatch, func(c *fakedaemon.Call) {
		op := api.Operation{ID: "0123456789ab", State: api.OperationRunning, Stages: []api.Stage{{Name: "clone disks", TookMS: -1}}}
		c.Reply(op)
		op.Stages = []api.Stage{{Name: "clone disks", TookMS: 20}, {Name: "boot", TookMS: -1}}
		c.Line(op)
		op.Stages[1].TookMS = 1980
		op.State, op.Result = api.OperationSucceeded, []byte(`{"ref":"`+ref+`"}`)
		c.Line(op)
	})
}
