package sessioncmd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/frame"
	"github.com/banger-vm/banger/client"
	"github.com/banger-vm/banger/internal/cli/app"
	"github.com/banger-vm/banger/internal/errkind"
)

// newLogs returns `banger vm session logs`.
func newLogs(a *app.App) *cobra.Command {
	var p api.SessionLogs
	var since string
	var stamps bool
	cmd := &cobra.Command{
		Use: "logs VM SESSION", Short: "Show a session's output",
		Long: `Show what a session has written, on this program's own standard output and standard error. --since takes a duration such as 10m, or
a time such as 14:30, 2026-01-31 14:30 or 2026-01-31T14:30:00Z. Where output is missing, because it is older than the log keeps
or the guest's disk was full, a line on standard error says how much.`,
		Example: `  banger vm session logs web build --tail 20
  banger vm session logs web server --follow --since 10m --timestamps
  banger vm session logs web build --stream stderr`,
	}
	named(a, cmd, 2, "a VM and a session", func(ctx context.Context, c *client.Client, vm, session string, _ []string) error {
		if p.Tail < 0 {
			return errkind.New(api.KindInvalid, "--tail %d is below zero", p.Tail)
		}
		var err error
		if p.Since, err = app.Moment(since, time.Now()); err != nil {
			return err
		}
		p.Ref.Ref, p.Session = vm, session
		s, err := c.SessionLogs(ctx, p)
		if err != nil {
			return err
		}
		defer s.Close()
		w := printer{app: a, stamps: stamps, next: -1}
		if p.Stream == "" && p.Since.IsZero() && p.Tail == 0 {
			w.next = p.From // what is missing at the beginning is told as well
		}
		return w.all(s)
	})
	f := cmd.Flags()
	f.BoolVarP(&p.Follow, "follow", "f", false, "go on until the session has ended, or Ctrl-C")
	f.IntVarP(&p.Tail, "tail", "n", 0, "only that many lines from the end (0: all)")
	f.StringVar(&since, "since", "", "only what was written since that `time`, or for so long")
	f.StringVar(&p.Stream, "stream", "", "only stdout or stderr")
	f.BoolVarP(&stamps, "timestamps", "t", false, "begin each line with the time at which it was written")
	cmd.RegisterFlagCompletionFunc("stream", cobra.FixedCompletions([]string{"stdout", "stderr"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// printer prints records.
type printer struct {
	app    *app.App
	stamps bool
	next   int64 // where the next record should begin; -1: anywhere
	inside [2]bool
}

// all prints what s has.
func (w *printer) all(s *client.SessionStream) error {
	filtered := w.next < 0
	for {
		rec, err := s.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := w.print(rec); err != nil {
			return err
		}
		if filtered {
			w.next = -1 // of records that were not asked for nothing is missing
		}
	}
}

func (w *printer) print(rec frame.Record) error {
	if w.next >= 0 && rec.Offset > w.next {
		fmt.Fprintf(w.app.Err, "banger: %d bytes of output are missing here\n", rec.Offset-w.next)
	}
	w.next = rec.End()
	out, inside := w.app.Out, &w.inside[0]
	if rec.Stream == frame.Stderr {
		out, inside = w.app.Err, &w.inside[1]
	}
	data := rec.Data
	if w.stamps {
		data = stamp(rec, inside)
	}
	_, err := out.Write(data)
	return err
}

// stamp begins each line that begins in rec with rec's time; inside says whether the last line goes on.
func stamp(rec frame.Record, inside *bool) []byte {
	var b bytes.Buffer
	for line := range bytes.Lines(rec.Data) {
		if !*inside {
			b.WriteString(rec.Time.Local().Format("2006-01-02T15:04:05.000Z07:00 "))
		}
		b.Write(line)
		*inside = !bytes.HasSuffix(line, []byte("\n"))
	}
	return b.Bytes()
}
