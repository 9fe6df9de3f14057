package daemoncmd

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/cli/app"
	"github.com/banger-vm/banger/internal/errkind"
)

type logsOptions struct {
	app    *app.App
	follow bool
	tail   int
}

func newLogs(a *app.App) *cobra.Command {
	o := &logsOptions{app: a}
	cmd := &cobra.Command{
		Use: "logs", Short: "Show the daemon's log", Args: app.Args(0, 0, ""),
		Long: "Show the daemon's log, from its file: the daemon need not run.",
		Example: `  banger daemon logs --tail 20
  banger daemon logs --follow`,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return runLogs(cmd.Context(), o) },
	}
	cmd.Flags().BoolVarP(&o.follow, "follow", "f", false, "go on with what is written from now on, until Ctrl-C")
	cmd.Flags().IntVarP(&o.tail, "tail", "n", 0, "only that many lines from the end (0: all)")
	return cmd
}

func runLogs(ctx context.Context, o *logsOptions) error {
	if o.tail < 0 {
		return errkind.New(api.KindInvalid, "--tail %d is below zero", o.tail)
	}
	paths, err := o.app.Paths()
	if err != nil {
		return err
	}
	f, err := os.Open(paths.DaemonLog())
	if errors.Is(err, fs.ErrNotExist) {
		return errkind.WithHint(errkind.New(api.KindNotFound, "the daemon has no log yet"), "it would be %s", paths.DaemonLog())
	}
	if errors.Is(err, fs.ErrPermission) {
		return errkind.WithHint(err, "only who runs the daemon may read its log: `sudo banger daemon logs`")
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if o.tail > 0 {
		if err := seekTail(f, o.tail); err != nil {
			return err
		}
	}
	if _, err := io.Copy(o.app.Out, f); err != nil || !o.follow {
		return err
	}
	const every = 200 * time.Millisecond
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if _, err := io.Copy(o.app.Out, f); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// seekTail moves f to the beginning of the last n lines, reading backwards from its end.
func seekTail(f *os.File, n int) error {
	const chunk = 64 << 10
	pos, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	buf := make([]byte, chunk)
	left := n + 1 // the newline that ends the last line begins none
	for pos > 0 {
		size := min(pos, chunk)
		pos -= size
		part := buf[:size]
		if _, err := f.ReadAt(part, pos); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		for i := bytes.LastIndexByte(part, '\n'); i >= 0; i = bytes.LastIndexByte(part[:i], '\n') {
			if left--; left == 0 {
				_, err := f.Seek(pos+int64(i)+1, io.SeekStart)
				return err
			}
		}
	}
	_, err = f.Seek(0, io.SeekStart)
	return err
}
