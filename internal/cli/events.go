package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"text/template"
	"time"

	"github.com/spf13/cobra"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/cli/app"
	"github.com/banger-vm/banger/internal/errkind"
)

type eventsOptions struct {
	app    *app.App
	params api.Events
	all    bool
	past   bool
	form   string
	format string
}

func newEvents(a *app.App) *cobra.Command {
	o := &eventsOptions{app: a}
	cmd := &cobra.Command{
		Use: "events [VM|IMAGE|KERNEL|OPERATION]", Short: "Show what happens, as it happens", Args: app.Args(0, 1, "one name or id"),
		Long: `Show what happens to VMs, images, kernels and operations, a line each, until Ctrl-C. Events are stored with the changes that
they tell of, so none is missing and their order is that of the changes. Each has a number; --after goes on behind the one with
that number, also when the daemon was restarted in between. The latest ten thousand are remembered. A daemon that stops is
waited for.

Types are vm.created, vm.state, vm.changed, vm.condition, vm.workspace, vm.idle, vm.deleted, image.created, image.deleted,
kernel.created, kernel.deleted, operation.begun and operation.ended.`,
		Example: `  banger events
  banger events web --type vm.state
  banger events --all --past -o json
  banger events --after 1041 --format '{{.Seq}} {{.Type}} {{.Name}}'`,
		ValidArgsFunction: a.CompleteVMs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				o.params.Subject = args[0]
			}
			return runEvents(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&o.params.Types, "type", nil, "only this type, or all types of a noun such as vm (repeatable)")
	f.Int64Var(&o.params.After, "after", 0, "begin behind the event with this `number` instead of with what happens next")
	f.BoolVar(&o.all, "all", false, "begin with the oldest event that is remembered")
	f.BoolVar(&o.past, "past", false, "end with the last event that is stored, instead of waiting for more")
	f.StringVarP(&o.form, "output", "o", "table", "table or json (an object a line)")
	f.StringVar(&o.format, "format", "", "print each event by this Go `template`")
	cmd.MarkFlagsMutuallyExclusive("after", "all")
	cmd.MarkFlagsMutuallyExclusive("output", "format")
	return cmd
}

func runEvents(ctx context.Context, o *eventsOptions) error {
	show, err := o.printer()
	if err != nil {
		return err
	}
	if o.params.After < 0 {
		return errkind.New(api.KindInvalid, "--after %d is below zero", o.params.After)
	}
	if o.all {
		o.params.After = -1
	}
	o.params.Follow = !o.past
	c, err := o.app.Client(ctx)
	for err == nil {
		o.params.After, err = c.Events(ctx, o.params, show)
		if err == nil {
			return nil
		}
		if o.past || !errkind.Is(err, api.KindUnavailable) {
			return err
		}
		c, err = o.app.AwaitDaemon(ctx)
	}
	return err
}

// printer returns what prints an event in the form that was asked for.
func (o *eventsOptions) printer() (func(api.Event) error, error) {
	switch {
	case o.format != "":
		t, err := template.New("format").Option("missingkey=error").Parse(o.format + "\n")
		if err != nil {
			return nil, errkind.New(api.KindInvalid, "--format: %w", err)
		}
		return func(e api.Event) error {
			if err := t.Execute(o.app.Out, e); err != nil {
				return errkind.New(api.KindInvalid, "--format: %w", err)
			}
			return nil
		}, nil
	case o.form == "json":
		enc := json.NewEncoder(o.app.Out)
		enc.SetEscapeHTML(false)
		return func(e api.Event) error { return enc.Encode(e) }, nil
	case o.form == "table":
		return func(e api.Event) error {
			_, err := fmt.Fprintln(o.app.Out, eventLine(e))
			return err
		}, nil
	}
	return nil, errkind.New(api.KindInvalid, "--output %q: want table or json", o.form)
}

func eventLine(e api.Event) string {
	name := e.Name
	if name == "" {
		name = e.ID
	}
	state := e.State
	if e.Before != "" {
		state = e.Before + " → " + e.State
	}
	line := fmt.Sprintf("%6d  %s  %-16s %s", e.Seq, e.At.Local().Format(time.DateTime), e.Type, name)
	for _, more := range []string{e.Kind, state, e.Message} {
		if more != "" {
			line += "  " + strings.ReplaceAll(more, "\n", " ")
		}
	}
	return line
}
