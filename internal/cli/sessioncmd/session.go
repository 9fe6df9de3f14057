// Package sessioncmd is `banger vm session`, with one file for verbs of a kind: start and show, attach, input, logs, and ends.
package sessioncmd

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/client"
	"github.com/banger-vm/banger/internal/cli/app"
)

// New returns `banger vm session` with its verbs.
func New(a *app.App) *cobra.Command {
	cmd := &cobra.Command{
		Use: "session", Aliases: []string{"sess"}, Short: "Run commands in VMs that outlive you", Args: cobra.NoArgs,
		Long: `A session is a command in a VM that goes on when this program, the network or the daemon goes away; any number of clients may watch
it, and one may write to it. It ends with its command, and stays, with its status and its log, until it is deleted. A VM that
is stopped or restarted ends its sessions: they are lost, and their logs are there when it runs again. A session is named by
its name, its id, or the beginning of its id.`,
	}
	cmd.AddCommand(newStart(a), newList(a), newShow(a), newAttach(a), newSend(a), newLogs(a), newSignal(a), newStop(a), newKill(a), newWait(a), newDelete(a))
	return cmd
}

// named is a verb on one session: its arguments are a VM and a session, and more if most says so.
func named(a *app.App, cmd *cobra.Command, most int, what string, run func(ctx context.Context, c *client.Client, vm, session string, rest []string) error) *cobra.Command {
	cmd.Args = app.Args(2, most, what)
	cmd.ValidArgsFunction = complete(a)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.Client(cmd.Context())
		if err != nil {
			return err
		}
		return run(cmd.Context(), c, args[0], args[1], args[2:])
	}
	return cmd
}

// each is a verb on sessions of one VM: its arguments are the VM and the sessions.
func each(a *app.App, cmd *cobra.Command, do func(ctx context.Context, c *client.Client, vm, session string) error) *cobra.Command {
	return named(a, cmd, -1, "a VM and a session", func(ctx context.Context, c *client.Client, vm, session string, rest []string) error {
		return a.Each(ctx, append([]string{session}, rest...),
			func(ctx context.Context, ref string) (app.Target, error) {
				s, err := c.SessionGet(ctx, vm, ref)
				return app.Target{ID: s.ID, Name: s.Name}, err
			},
			func(ctx context.Context, t app.Target) error { return do(ctx, c, vm, t.ID) })
	})
}

// complete completes the VM, and then its sessions.
func complete(a *app.App) app.Completion {
	return func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 0 {
			return a.CompleteVMs(1)(cmd, args, word)
		}
		return a.CompleteSessions(args[0])(cmd, args[1:], word)
	}
}

func ref(session string) guestapi.SessionRef { return guestapi.SessionRef{Session: session} }

// newList returns `banger vm session list`.
func newList(a *app.App) *cobra.Command {
	var out app.Output
	var states, tags []string
	cmd := &cobra.Command{
		Use: "list [VM...]", Aliases: []string{"ls"}, Short: "List sessions of some VMs, or of all", ValidArgsFunction: a.CompleteVMs(-1),
		Long: `List sessions, by VM and age. A VM that does not run cannot be asked: what is listed is what it told last, and what ran in it is
lost. With --state and --tag only sessions of one of these states, and with all of these tags, are listed.`,
		Example: `  banger vm session list
  banger vm session list web --state running --tag ci`,
		RunE: func(cmd *cobra.Command, refs []string) error {
			c, err := a.Client(cmd.Context())
			if err != nil {
				return err
			}
			all, err := c.SessionList(cmd.Context(), refs...)
			if err != nil {
				return err
			}
			all = slices.DeleteFunc(all, func(s api.Session) bool { return !wanted(s, states, tags) })
			return app.PrintList(a, out, all, table(time.Now()))
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&states, "state", nil, "only these states: running, waiting, stopping, exited, lost")
	f.StringSliceVar(&tags, "tag", nil, "only sessions with these tags")
	out.Flags(cmd)
	return cmd
}

func wanted(s api.Session, states, tags []string) bool {
	if len(states) > 0 && !slices.Contains(states, string(s.State)) {
		return false
	}
	return !slices.ContainsFunc(tags, func(tag string) bool { return !slices.Contains(s.Tags, tag) })
}

func table(now time.Time) app.Table[api.Session] {
	return app.Table[api.Session]{
		Name: func(s api.Session) string { return s.Name },
		Columns: []app.Column[api.Session]{
			{Head: "VM", Cell: func(s api.Session) string { return s.VM }},
			{Head: "NAME", Cell: func(s api.Session) string { return s.Name }},
			{Head: "STATE", Cell: state},
			{Head: "COMMAND", Cell: command},
			{Head: "TAGS", Cell: func(s api.Session) string { return strings.Join(s.Tags, ",") }},
			{Head: "ATTACHED", Cell: func(s api.Session) string { return fmt.Sprint(s.Attached) }},
			{Head: "AGE", Cell: func(s api.Session) string { return app.Age(now, s.Created) }, Amount: func(s api.Session) int64 { return -s.Created.UnixNano() }},
		},
	}
}

// state is the state, with the status of one that has ended.
func state(s api.Session) string {
	switch {
	case s.State != guestapi.SessionExited || s.Exit == nil:
		return string(s.State)
	case s.Exit.Signal != "":
		return "exited (" + s.Exit.Signal + ")"
	}
	return fmt.Sprintf("exited (%d)", s.Exit.Code)
}

// command is the command line for people, shortened.
func command(s api.Session) string {
	words := strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, strings.Join(s.Argv, " "))
	if r := []rune(words); len(r) > 40 {
		return string(r[:39]) + "…"
	}
	return words
}

// newShow returns `banger vm session show`.
func newShow(a *app.App) *cobra.Command {
	var out app.Output
	cmd := &cobra.Command{
		Use: "show VM SESSION", Aliases: []string{"inspect"}, Short: "Describe a session",
		Long: `Describe a session: its command, what it is doing or how it ended, and how much output it has.`, Example: `  banger vm session show web build
  banger vm session show web build --format '{{.Exit.Code}}'`,
	}
	named(a, cmd, 2, "a VM and a session", func(ctx context.Context, c *client.Client, vm, session string, _ []string) error {
		s, err := c.SessionGet(ctx, vm, session)
		if err != nil {
			return err
		}
		return app.PrintOne(a, out, s, s.Name, fields(s))
	})
	out.Flags(cmd)
	return cmd
}

func fields(s api.Session) []app.Field {
	f := []app.Field{
		{Name: "Name", Value: s.Name}, {Name: "ID", Value: s.ID}, {Name: "VM", Value: s.VM}, {Name: "State", Value: state(s)},
		{Name: "Command", Value: command(s)}, {Name: "Directory", Value: s.Cwd}, {Name: "User", Value: s.User},
		{Name: "Input", Value: input(s)}, {Name: "Tags", Value: strings.Join(s.Tags, ", ")},
		{Name: "Created", Value: app.Stamp(s.Created)}, {Name: "Started", Value: app.Stamp(s.Started)}, {Name: "Ended", Value: app.Stamp(s.Ended)},
		{Name: "Output", Value: fmt.Sprintf("%d bytes, kept from %d on", s.LogEnd, s.LogFirst)}, {Name: "Attached", Value: fmt.Sprint(s.Attached)},
	}
	if s.PID != 0 {
		f = append(f, app.Field{Name: "PID", Value: fmt.Sprint(s.PID)})
	}
	if s.Restarts > 0 {
		f = append(f, app.Field{Name: "Restarts", Value: fmt.Sprint(s.Restarts)})
	}
	if s.LogLost > 0 {
		f = append(f, app.Field{Name: "Lost", Value: fmt.Sprintf("%d bytes of output, for which the guest's disk had no room", s.LogLost)})
	}
	if s.Exit != nil && s.Exit.Error != "" {
		f = append(f, app.Field{Name: "Error", Value: s.Exit.Error})
	}
	return f
}

// The values of --stdin.
const (
	inputClosed = "closed"
	inputPipe   = "pipe"
	inputPTY    = "pty"
)

func input(s api.Session) string {
	switch {
	case s.TTY:
		return inputPTY
	case s.Stdin:
		return inputPipe
	}
	return inputClosed
}
