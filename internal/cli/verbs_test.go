package cli_test

import (
	"strings"
	"testing"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/cli/fakedaemon"
	"github.com/google/go-cmp/cmp"
)

func TestSet(t *testing.T) {
	d := fakedaemon.Start(t)
	vms(d, web())
	d.Result(api.MethodVMSet, web())
	t.Run("flags become parameters", func(t *testing.T) {
		banger(t, d).env(map[string]string{"TOKEN": "secret"}).ok("vm", "set", "web", "--name", "www", "--vcpu", "2", "--memory", "2G",
			"--disk-size", "20G", "--root-size", "8G", "--nat=false", "--group", "shop", "--publish", "8080:80", "-p", "0.0.0.0:53:53", "--env", "TOKEN", "--unset-env", "DEBUG", "--auto-stop", "never", "--restart")
		no, never, shop := false, int64(0), "shop"
		want := api.VMSet{Ref: api.Ref{Ref: web().ID}, Name: "www", VCPU: 2, MemMiB: 2048, DiskSize: 20 << 30, RootSize: 8 << 30, NAT: &no,
			Group: &shop, Publish: &[]string{"8080:80", "0.0.0.0:53:53"}, Env: []string{"TOKEN=secret"}, UnsetEnv: []string{"DEBUG"}, AutoStopMS: &never, Restart: true}
		var got api.VMSet
		d.Params(api.MethodVMSet, &got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("an empty group and an empty port take away what was there", func(t *testing.T) {
		banger(t, d).ok("vm", "set", "web", "--group", "", "--publish", "")
		var got api.VMSet
		d.Params(api.MethodVMSet, &got)
		none := ""
		if diff := cmp.Diff(api.VMSet{Ref: api.Ref{Ref: web().ID}, Group: &none, Publish: &[]string{}}, got); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("auto-stop is a duration, never or default", func(t *testing.T) {
		for text, want := range map[string]int64{"90s": 90_000, "never": 0, "default": -1} {
			banger(t, d).ok("vm", "set", "web", "--auto-stop", text)
			var got api.VMSet
			if d.Params(api.MethodVMSet, &got); got.AutoStopMS == nil || *got.AutoStopMS != want {
				t.Errorf("%s: %v", text, got.AutoStopMS)
			}
		}
		banger(t, d).fails(64, "bad duration", "vm", "set", "web", "--auto-stop", "soon")
		banger(t, d).fails(64, "less than a second", "vm", "set", "web", "--auto-stop", "1ms")
	})
	t.Run("bad requests", func(t *testing.T) {
		banger(t, d).fails(64, "nothing to change", "vm", "set", "web")
		banger(t, d).fails(64, "nothing to change", "vm", "set", "--restart", "web")
		banger(t, d).fails(64, "--name is for one VM", "vm", "set", "--name", "x", "web", "db")
		banger(t, d).fails(64, "at least one processor", "vm", "set", "--vcpu", "0", "web")
	})
}

func TestStats(t *testing.T) {
	d := fakedaemon.Start(t)
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	calls := 0
	d.On(api.MethodVMStats, func(c *fakedaemon.Call) {
		calls++
		up := api.VMStats{ID: "aaaaaaaaaaaa", Name: "web", State: "running", At: at.Add(time.Duration(calls) * 2 * time.Second), VCPU: 2,
			CPUMS: int64(calls) * 1000, Mem: 1 << 30, MemResident: 300 << 20, RootAllocated: 5 << 20, DiskAllocated: 7 << 20,
			Guest: &guestapi.Stats{MemTotal: 1000 << 20, MemAvailable: 600 << 20, NetRx: 2048, Processes: 12,
				Disks: []guestapi.DiskUse{{Target: "/", Size: 100, Used: 20}, {Target: "/mods", Size: 9, Used: 9, ReadOnly: true}, {Target: "/root", Size: 100, Used: 40}}}}
		c.Reply(api.VMStatsList{VMs: []api.VMStats{up, {ID: "bbbbbbbbbbbb", Name: "db", State: "running", GuestError: "silent"}}})
	})
	t.Run("processor time is that of the interval", func(t *testing.T) {
		c := banger(t, d).ok("vm", "stats", "--interval", "10ms", "--columns", "name,cpu,resident,guest,root,work,filled,netin")
		want := "NAME  CPU  RESIDENT  GUEST          ROOT  WORK  FILLED     NET IN\n" +
			"web   50%  300M      400M of 1000M  5M    7M    40% /root  2K\n" +
			"db    -    -         -              -     -     -          -\n"
		if diff := cmp.Diff(want, c.stdout); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("watching goes on until it is interrupted", func(t *testing.T) {
		c := banger(t, d)
		out := &waitFor{want: "75%", found: make(chan struct{})}
		calls = 0
		c.app.Out = out
		go func() { <-out.found; c.signal(2) }()
		at = at.Add(-time.Hour)
		d.On(api.MethodVMStats, func(call *fakedaemon.Call) {
			calls++
			call.Reply(api.VMStatsList{VMs: []api.VMStats{{ID: "aaaaaaaaaaaa", Name: "web", At: at.Add(time.Duration(calls) * time.Second),
				CPUMS: int64(calls) * 250 * int64(min(calls, 2))}}})
		})
		if c.run("vm", "stats", "--watch", "--interval", "10ms", "web"); c.code != 130 {
			t.Errorf("exit status %d: %s", c.code, c.stderr)
		}
	})
	t.Run("programs get what they ask for", func(t *testing.T) {
		for _, args := range [][]string{{"-o", "json"}, {"-q"}, {"--format", "{{.Name}}"}, {"--filter", "name=web", "--sort", "-cpu"}} {
			if c := banger(t, d).ok(append([]string{"vm", "stats", "--interval", "10ms"}, args...)...); !strings.Contains(c.stdout, "web") {
				t.Errorf("%q: %q", args, c.stdout)
			}
		}
	})
	banger(t, d).fails(64, "too short", "vm", "stats", "--interval", "1ms")
}

func TestPrune(t *testing.T) {
	d := fakedaemon.Start(t)
	d.Result(api.MethodVMPrune, api.VMPruned{
		Deleted: []api.PrunedVM{{ID: "aaaaaaaaaaaa", Name: "old", Freed: 3 << 20}},
		Kept:    []api.PrunedVM{{ID: "bbbbbbbbbbbb", Name: "dear", Reason: "it has changes"}},
	})
	c := banger(t, d).ok("vm", "prune", "--older-than", "1h", "--dry-run")
	if !strings.Contains(c.stdout, "old   aaaaaaaaaaaa  3M") || c.stderr != "banger: kept dear: it has changes\n" {
		t.Errorf("stdout %q, stderr %q", c.stdout, c.stderr)
	}
	var p api.VMPrune
	if d.Params(api.MethodVMPrune, &p); p.OlderThanMS != 3_600_000 || !p.DryRun {
		t.Errorf("asked %+v", p)
	}
	if c := banger(t, d).ok("vm", "prune", "-o", "json"); !strings.Contains(c.stdout, `"kept"`) || c.stderr != "" {
		t.Errorf("stdout %q, stderr %q", c.stdout, c.stderr)
	}
	if c := banger(t, d).ok("vm", "prune", "-q"); c.stdout != "old\n" {
		t.Errorf("got %q", c.stdout)
	}
	if c := banger(t, d).ok("vm", "prune", "--format", "{{.Freed}}"); c.stdout != "3145728\n" {
		t.Errorf("got %q", c.stdout)
	}
	banger(t, d).fails(64, "below zero", "vm", "prune", "--older-than", "-1h")
}

func TestPing(t *testing.T) {
	d := fakedaemon.Start(t)
	d.Result(api.MethodVMPing, api.VMPing{RTTMicros: 1234})
	if c := banger(t, d).ok("vm", "ping", "web", "db"); strings.Count(c.stdout, "1.2 ms") != 2 {
		t.Errorf("got %q", c.stdout)
	}
	for want, args := range map[string][]string{"web\n": {"-q"}, "1234\n": {"--format", "{{.RTTMicros}}"}} {
		if c := banger(t, d).ok(append([]string{"vm", "ping", "web"}, args...)...); c.stdout != want {
			t.Errorf("%q: %q", args, c.stdout)
		}
	}
	if c := banger(t, d).ok("vm", "ping", "web", "-o", "json"); !strings.Contains(c.stdout, `"rtt_us": 1234`) {
		t.Errorf("got %q", c.stdout)
	}
}

func TestSelection(t *testing.T) {
	d := fakedaemon.Start(t)
	small := api.VM{ID: "bbbbbbbbbbbb", Name: "db", State: "stopped", MemMiB: 512, Workspace: &api.Workspace{GuestPath: "/root/src"}}
	large := api.VM{ID: "cccccccccccc", Name: "web-2", State: "running", MemMiB: 10240}
	d.Result(api.MethodVMList, api.VMList{VMs: []api.VM{small, large, {ID: "aaaaaaaaaaaa", Name: "web-1", State: "running", MemMiB: 2048}}})
	for _, c := range []struct {
		what string
		args []string
		want string
	}{
		{"a pattern selects rows", []string{"--filter", "name=web*"}, "web-2 web-1"},
		{"a pattern without a slash matches paths", []string{"--filter", "workspace=*src"}, "db"},
		{"a pattern may be denied, and several hold together", []string{"--filter", "state!=stopped", "--filter", "Memory=2*"}, "web-1"},
		{"amounts are sorted as numbers", []string{"--sort", "memory"}, "db web-1 web-2"},
		{"the other way round", []string{"--sort", "-name"}, "web-2 web-1 db"},
	} {
		t.Run(c.what, func(t *testing.T) {
			got := banger(t, d).ok(append([]string{"vm", "list", "-q"}, c.args...)...)
			if names := strings.Join(strings.Fields(got.stdout), " "); names != c.want {
				t.Errorf("got %q, want %q", names, c.want)
			}
		})
	}
	if c := banger(t, d).ok("vm", "list", "--columns", "state,name", "--filter", "name=db"); c.stdout != "STATE    NAME\nstopped  db\n" {
		t.Errorf("got %q", c.stdout)
	}
	banger(t, d).fails(64, "no column", "vm", "list", "--sort", "colour")
	banger(t, d).fails(64, "no column", "vm", "list", "--columns", "colour")
	banger(t, d).fails(64, "bad filter", "vm", "list", "--filter", "web")
	banger(t, d).fails(64, "bad pattern", "vm", "list", "--filter", "name=[")
}

func TestWait(t *testing.T) {
	d := fakedaemon.Start(t)
	vms(d, web())
	t.Run("the state is looked at behind a place in the stream, which is then followed from there", func(t *testing.T) {
		var asked []api.Events
		d.On(api.MethodEvents, func(c *fakedaemon.Call) {
			var p api.Events
			c.Decode(&p)
			asked = append(asked, p)
			c.Reply(api.EventsReply{Last: 5})
			if p.Follow && p.After == 5 {
				c.Line(api.Event{Seq: 6, Type: api.EventVMState, ID: web().ID, State: "stopping"})
				return // the daemon goes away
			}
			if p.Follow {
				c.Line(api.Event{Seq: 7, Type: api.EventVMState, ID: web().ID, State: "stopped"})
			}
		})
		banger(t, d).ok("vm", "wait", "web", "--timeout", "1m")
		want := []api.Events{
			{Subject: web().ID, Types: []string{"vm"}},
			{Subject: web().ID, Types: []string{"vm"}, After: 5, Follow: true},
			{Subject: web().ID, Types: []string{"vm"}, After: 6, Follow: true},
		}
		if diff := cmp.Diff(want, asked); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("one that is there already is not waited for", func(t *testing.T) {
		if c := banger(t, d).ok("vm", "wait", "--for", "running,failed", "web"); c.stdout != "web\n" {
			t.Errorf("got %q", c.stdout)
		}
	})
	t.Run("a deleted VM is seen", func(t *testing.T) {
		d.On(api.MethodEvents, func(c *fakedaemon.Call) {
			c.Reply(api.EventsReply{Last: 5})
			c.Line(api.Event{Seq: 6, Type: api.EventVMDeleted, ID: web().ID, State: "running"})
		})
		banger(t, d).ok("vm", "wait", "--for", "deleted", "web")
	})
	t.Run("it gives up in time", func(t *testing.T) {
		d.On(api.MethodEvents, func(c *fakedaemon.Call) {
			var p api.Events
			c.Decode(&p)
			c.Reply(api.EventsReply{Last: 5})
			if p.Follow {
				c.HangUp()
			}
		})
		banger(t, d).fails(124, "not in time", "vm", "wait", "--timeout", "50ms", "web")
	})
	banger(t, d).fails(64, "no state", "vm", "wait", "--for", "happy", "web")
}
