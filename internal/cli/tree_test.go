package cli_test

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/cli"
	"github.com/banger-vm/banger/internal/cli/fakedaemon"
	"github.com/banger-vm/banger/internal/host"
)

func TestHelpTeaches(t *testing.T) {
	walk(cli.New(testApp(io.Discard, io.Discard)), func(cmd *cobra.Command) {
		t.Run(cmd.CommandPath(), func(t *testing.T) {
			if cmd.Short == "" || cmd.Long == "" {
				t.Error("no description")
			}
			leaf := !cmd.HasSubCommands() && cmd.Runnable()
			if leaf && !strings.Contains(cmd.Example, cmd.Name()) && cmd.Name() != "ps" {
				t.Errorf("the examples do not show the command: %q", cmd.Example)
			}
			var out bytes.Buffer
			cmd.SetOut(&out)
			if err := cmd.Help(); err != nil {
				t.Fatal(err)
			}
			cmd.NonInheritedFlags().VisitAll(func(f *pflag.Flag) {
				if !f.Hidden && (!strings.Contains(out.String(), "--"+f.Name) || f.Usage == "") {
					t.Errorf("--%s is not explained", f.Name)
				}
			})
			for _, line := range strings.Split(cmd.Long+"\n"+cmd.Example, "\n") {
				if len(line) > 140 {
					t.Errorf("a line of %d characters: %s", len(line), line)
				}
			}
		})
	})
}

func TestExamplesParse(t *testing.T) {
	walk(cli.New(testApp(io.Discard, io.Discard)), func(cmd *cobra.Command) {
		for _, line := range strings.Split(cmd.Example, "\n") {
			rest, ok := strings.CutPrefix(strings.TrimSpace(line), "banger ")
			if !ok {
				continue
			}
			rest, _, _ = strings.Cut(rest, "   ")
			for _, end := range []string{" > ", " | ", " && "} {
				rest, _, _ = strings.Cut(rest, end)
			}
			found, args, err := cli.New(testApp(io.Discard, io.Discard)).Find(strings.Fields(rest))
			if err == nil {
				err = found.ParseFlags(args)
			}
			if err != nil || !found.Runnable() {
				t.Errorf("%s: example %q: %v", cmd.CommandPath(), line, err)
			}
		}
	})
}

func TestUsageErrors(t *testing.T) {
	d := fakedaemon.Start(t)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"vm", "list", "--nope"}, "unknown flag: --nope"},
		{[]string{"vm", "strat"}, `unknown command "strat" for "banger vm"; did you mean "start"?`},
		{[]string{"nonsense"}, `unknown command "nonsense" for "banger"`},
		{[]string{"vm", "start"}, "banger vm start needs a VM"},
		{[]string{"vm", "show"}, "banger vm show needs a VM"},
		{[]string{"vm", "list", "web"}, `banger vm list takes no arguments: "web"`},
		{[]string{"vm", "logs", "a", "b"}, `banger vm logs takes one VM: "b" is too many`},
		{[]string{"vm", "cp", "a"}, "banger vm cp needs a source and a destination, and 1 were given"},
		{[]string{"vm", "list", "-o", "xml"}, `unknown output form "xml"`},
		{[]string{"vm", "create", "--memory", "lots"}, `bad size "lots"`},
		{[]string{"vm", "create", "--memory", "0"}, "is not above zero"},
		{[]string{"vm", "create", "--memory", "512"}, "is less than 1M"},
		{[]string{"vm", "create", "--vcpu", "0"}, "at least one processor"},
		{[]string{"vm", "create", "--publish", "http"}, `bad port to publish "http"`},
		{[]string{"vm", "create", "--name", "Web!"}, `bad VM name "Web!"`},
		{[]string{"vm", "create", "--env", "NOT_SET"}, `--env "NOT_SET": not set in your environment`},
		{[]string{"vm", "create", "--env", "=x"}, "no variable name"},
		{[]string{"vm", "stop", "--timeout", "0s", "web"}, "too short"},
		{[]string{"vm", "logs", "--source", "tape", "web"}, `unknown log "tape"`},
		{[]string{"vm", "logs", "--tail", "-1", "web"}, "below zero"},
		{[]string{"daemon", "logs", "--tail", "-1"}, "below zero"},
		{[]string{"vm", "exec", "-t", "web", "--", "top"}, "-t needs a terminal"},
		{[]string{"vm", "dial", "web"}, "either an address or --ssh"},
		{[]string{"vm", "dial", "--ssh", "web", "localhost:22"}, "either an address or --ssh"},
		{[]string{"vm", "cp", "a", "b"}, "neither end is in a VM"},
		{[]string{"vm", "cp", "web:a", "db:b"}, "both ends are in VMs"},
		{[]string{"vm", "cp", "--archive", "web:a", "b"}, "are for copies into a VM"},
		{[]string{"vm", "cp", "--archive", "--user", "x", "a", "web:b"}, "none of the others can be"},
		{[]string{"kernel", "import"}, "at least one of the flags"},
		{[]string{"kernel", "import", "--host", "--deb", "x"}, "none of the others can be"},
		{[]string{"kernel", "import", "--host", "--config", "x"}, "go with --path"},
		{[]string{"kernel", "import", "--host", "--name", "-"}, `bad kernel name "-"`},
		{[]string{"image", "build", "debian", "Big Image"}, `bad image name "Big Image"`},
		{[]string{"completion", "tcsh"}, `unknown shell "tcsh"`},
		{[]string{"vm", "run", "a", "b"}, `one PATH at most: "b" is too many`},
		{[]string{"vm", "run", "--"}, "no command after --"},
		{[]string{"vm", "run", "--rm", "--detach"}, "none of the others can be"},
		{[]string{"vm", "run", "--detach", "-t", "--", "true"}, "--detach has no terminal"},
		{[]string{"vm", "run", "--detach", "--apply"}, "--detach has no end"},
		{[]string{"vm", "run", "--no-workspace", "."}, "contradicts the path"},
		{[]string{"vm", "run", "--no-workspace", "--apply"}, "--no-workspace contradicts"},
		{[]string{"vm", "run", "--no-workspace", "-t", "--", "top"}, "-t needs a terminal"},
		{[]string{"vm", "run", "--patch", "/no/where/x.patch"}, "there is no directory /no/where"},
		{[]string{"vm", "run", "--patch", "/tmp"}, "/tmp is a directory"},
		{[]string{"vm", "workspace", "export", "--format", "zip", "web"}, `unknown export format "zip"`},
		{[]string{"vm", "workspace", "export", "--base", "zero", "web"}, `unknown base "zero"`},
		{[]string{"vm", "workspace", "export", "--base", "commit", "--format", "tar", "web"}, "is for patches"},
		{[]string{"vm", "workspace", "export", "--apply", "--format", "tar", "web"}, "--apply needs a patch"},
		{[]string{"vm", "workspace", "export", "--apply", "--base", "commit", "web"}, "against what was carried in"},
		{[]string{"vm", "workspace", "export", "--repo", ".", "web"}, "goes with --apply"},
		{[]string{"vm", "workspace", "prepare", "--guest-path", "x/..", "web"}, "bad guest path"},
	} {
		banger(t, d).fails(64, c.want, c.args...)
	}
	if calls := d.Calls(); len(calls) > 0 {
		t.Errorf("bad command lines reached the daemon: %q", calls)
	}
}

func TestCompletion(t *testing.T) {
	d := fakedaemon.Start(t)
	d.Result(api.MethodVMList, api.VMList{VMs: []api.VM{{Name: "web", State: "running"}, {Name: "worker", State: "stopped"}, {Name: "db"}}})
	d.Result(api.MethodImageList, api.ImageList{Images: []api.Image{{Name: "debian", Source: "debian:bookworm"}}})
	d.Result(api.MethodKernelList, api.KernelList{Kernels: []api.Kernel{{Name: "cloud", Release: "6.1"}}})
	d.Result(api.MethodOperationList, api.OperationList{Operations: []api.Operation{{ID: "abc", Kind: "vm.create"}}})
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"vm", "start", "w"}, "web\trunning\nworker\tstopped\n:4\n"},
		{[]string{"vm", "start", "web", "w"}, "worker\tstopped\n:4\n"},
		{[]string{"exec", ""}, "web\trunning\nworker\tstopped\ndb\t\n:4\n"},
		{[]string{"image", "show", ""}, "debian\tdebian:bookworm\n:4\n"},
		{[]string{"vm", "create", "--image", ""}, "debian\tdebian:bookworm\n:4\n"},
		{[]string{"run", "--kernel", ""}, "cloud\t6.1\n:4\n"},
		{[]string{"kernel", "delete", ""}, "cloud\t6.1\n:4\n"},
		{[]string{"operation", "cancel", ""}, "abc\tvm.create\n:4\n"},
		{[]string{"vm", "list", "-o", ""}, "table\njson\nyaml\n:4\n"},
		{[]string{"vm", "logs", "web", ""}, ":4\n"},
		{[]string{"vm", "list", ""}, ":4\n"},
	} {
		got := banger(t, d).ok(append([]string{"__complete"}, c.args...)...).stdout
		if strings.ReplaceAll(got, "db\n", "db\t\n") != c.want {
			t.Errorf("%q: got %q, want %q", c.args, got, c.want)
		}
	}
	t.Run("without a daemon there is nothing to complete, and none is started", func(t *testing.T) {
		c := banger(t, nil).env(map[string]string{"BANGER_ROOT": filepath.Join(os.TempDir(), "bng-none"), "BANGER_NO_START": ""})
		if got := c.ok("__complete", "vm", "start", "").stdout; got != ":4\n" {
			t.Errorf("got %q", got)
		}
	})
}

func TestCompletionScripts(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		script := banger(t, nil).ok("completion", shell).stdout
		if !strings.Contains(script, "banger") {
			t.Errorf("%s: %q", shell, script)
		}
		check := []string{shell, "-n"}
		if _, err := host.LookPath(shell); err != nil {
			t.Logf("skip: the %s script is not checked, %s is not installed", shell, shell)
			continue
		}
		if err := host.Run(t.Context(), host.Command{Argv: check, Stdin: strings.NewReader(script)}); err != nil {
			t.Errorf("%s: %v", shell, err)
		}
	}
}

func TestManPages(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "man1")
	banger(t, nil).ok("docs", "man", dir)
	b, err := os.ReadFile(filepath.Join(dir, "banger-vm-run.1"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`.TH "BANGER-VM-RUN" 1`, ".SH SYNOPSIS", `\fB\-\-include\-untracked\fP`, ".SH EXAMPLES", `\fBbanger\-vm\fP(1)`} {
		if !strings.Contains(string(b), want) {
			t.Errorf("no %q in\n%s", want, b)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "banger-vm-dial.1")); err == nil {
		t.Error("a hidden command has a page")
	}
	share := t.TempDir()
	banger(t, nil).ok("docs", "share", share)
	if same, err := os.ReadFile(filepath.Join(share, "man/man1/banger-vm-run.1")); err != nil || !bytes.Equal(same, b) {
		t.Errorf("it is another page in the tree: %v", err)
	}
	for path, want := range map[string]string{
		"bash-completion/completions/banger": "# bash completion", "zsh/site-functions/_banger": "#compdef banger",
		"fish/vendor_completions.d/banger.fish": "# fish completion",
	} {
		if b, err := os.ReadFile(filepath.Join(share, path)); err != nil || !bytes.HasPrefix(b, []byte(want)) {
			t.Errorf("%s: %v, begins with %.20q", path, err, b)
		}
	}
	if _, err := host.LookPath("man"); err != nil {
		t.Log("skip: the pages are not rendered, man is not installed")
		return
	}
	pages, err := filepath.Glob(filepath.Join(dir, "*.1"))
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range pages {
		out, err := host.Output(t.Context(), host.Command{Argv: []string{"man", "--warnings", "-l", "-Tutf8", page}, Env: []string{"MANPAGER=cat"}})
		if err != nil || len(out) == 0 {
			t.Errorf("%s: %v", page, err)
		}
	}
}

func TestVersionAndTopics(t *testing.T) {
	if got := banger(t, nil).ok("version").stdout; !strings.HasPrefix(got, "Version:     v1.2.3\nProtocol:    1\n") {
		t.Errorf("got %q", got)
	}
	if got := banger(t, nil).ok("version", "-o", "json", "--format", "{{.Version}}").stdout; got != "v1.2.3\n" {
		t.Errorf("got %q", got)
	}
	if got := banger(t, nil).ok("version", "-q").stdout; got != "v1.2.3\n" {
		t.Errorf("got %q", got)
	}
	if got := banger(t, nil).ok("help", "exit-codes").stdout; !strings.Contains(got, "130   interrupted") {
		t.Errorf("got %q", got)
	}
	if got := banger(t, nil).ok("vm").stdout; !strings.Contains(got, "workspace") {
		t.Errorf("got %q", got)
	}
}
