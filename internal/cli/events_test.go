package cli_test

import (
	"strings"
	"testing"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/cli/fakedaemon"
	"github.com/banger-vm/banger/internal/errkind"
)

func TestEvents(t *testing.T) {
	starting := api.Event{Seq: 7, Type: api.EventVMState, ID: "aaaaaaaaaaaa", Name: "web", Before: "created", State: "starting"}
	failed := api.Event{Seq: 9, Type: api.EventVMState, ID: "aaaaaaaaaaaa", Name: "web", Before: "starting", State: "failed", Message: "no\nluck"}
	d := fakedaemon.Start(t)
	d.On(api.MethodEvents, func(c *fakedaemon.Call) {
		c.Reply(api.EventsReply{Last: 6})
		c.Line(starting)
		c.Line(failed)
	})
	t.Run("a line tells an event", func(t *testing.T) {
		c := banger(t, d).ok("events", "web", "--past", "--all", "--type", "vm.state")
		lines := strings.Split(strings.TrimSpace(c.stdout), "\n")
		if len(lines) != 2 || !strings.Contains(lines[0], "web  created → starting") || !strings.HasSuffix(lines[1], "starting → failed  no luck") {
			t.Errorf("got %q", lines)
		}
		var p api.Events
		d.Params(api.MethodEvents, &p)
		if p.Subject != "web" || p.After != -1 || p.Follow || len(p.Types) != 1 {
			t.Errorf("asked %+v", p)
		}
	})
	t.Run("as JSON and by a template", func(t *testing.T) {
		if c := banger(t, d).ok("events", "--past", "-o", "json"); strings.Count(c.stdout, `"seq":`) != 2 {
			t.Errorf("got %s", c.stdout)
		}
		if c := banger(t, d).ok("events", "--past", "--format", "{{.Seq}} {{.State}}"); c.stdout != "7 starting\n9 failed\n" {
			t.Errorf("got %q", c.stdout)
		}
	})
	t.Run("a daemon that went away is waited for, and nothing is missed or told twice", func(t *testing.T) {
		d := fakedaemon.Start(t)
		calls := 0
		d.On(api.MethodEvents, func(c *fakedaemon.Call) {
			var p api.Events
			c.Decode(&p)
			if calls++; calls == 1 {
				c.Reply(api.EventsReply{Last: 6})
				c.Line(starting)
				return // cut
			}
			if p.After != 7 || !p.Follow {
				t.Errorf("resumed with %+v", p)
			}
			c.Reply(api.EventsReply{Last: 7})
			c.Line(failed)
			c.Line("no event")
		})
		c := banger(t, d).run("events", "--format", "{{.Seq}}")
		if c.stdout != "7\n9\n" || calls != 2 {
			t.Errorf("got %q in %d calls; %s", c.stdout, calls, c.stderr)
		}
	})
	t.Run("bad requests", func(t *testing.T) {
		banger(t, d).fails(64, "--after -3", "events", "--after", "-3")
		banger(t, d).fails(64, "none of the others can be", "events", "--after", "3", "--all")
		banger(t, d).fails(64, "want table or json", "events", "-o", "yaml")
		banger(t, d).fails(64, "--format", "events", "--format", "{{")
		d.Error(api.MethodEvents, errkind.WithHint(errkind.New(api.KindPrecondition, "not all remembered"), "follow from now on"))
		banger(t, d).fails(78, "hint: follow from now on", "events", "--after", "3")
	})
}
