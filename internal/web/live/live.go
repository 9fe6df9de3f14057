// Package live tells browsers, over server-sent events (HTML Living Standard, 9.2), that something has happened.
//
// It does not say what: a page loads its parts anew. So however many events come at once, a browser is told at most once an
// interval, and one that was away resumes from the last event that it was told of. Two kinds of message: "change", whose id is
// the resume token of daemon.events, and "stats", what VMs use now, as vm.stats has it.
package live

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/client"
	"github.com/banger-vm/banger/internal/errkind"
)

// Config is what a [Stream] is made of.
type Config struct {
	// Connect returns a client of this daemon.
	Connect func(ctx context.Context) (*client.Client, error)
	// Change and Stats are how often, at most, a browser is told of changes and of statistics.
	Change, Stats time.Duration
	Log           *slog.Logger
}

// Stream serves the events.
type Stream struct{ c Config }

// New returns a stream.
func New(c Config) *Stream { return &Stream{c} }

// ServeHTTP serves one browser until it leaves.
func (s *Stream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	c, err := s.c.Connect(ctx)
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	b := &browser{w: w, control: http.NewResponseController(w), c: c, dirty: make(chan struct{}, 1), stats: s.c.Stats}
	if err := b.control.SetWriteDeadline(time.Time{}); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	go func() { cancel(b.follow(ctx, r.Header.Get("Last-Event-ID"))) }()
	if err := b.tell(ctx, s.c.Change); err != nil {
		s.c.Log.Debug("a browser is told no more", "err", err)
	}
}

// browser is one that listens.
type browser struct {
	w       http.ResponseWriter
	control *http.ResponseController
	c       *client.Client
	stats   time.Duration
	last    atomic.Int64  // the Seq of the last event
	dirty   chan struct{} // has an element when there is something to tell
}

func (b *browser) mark() {
	select {
	case b.dirty <- struct{}{}:
	default:
	}
}

// follow marks what happens from the token on, until ctx or the daemon ends. A token that is of no use any more, as after the
// database was replaced, is a change.
func (b *browser) follow(ctx context.Context, token string) error {
	after, _ := strconv.ParseInt(token, 10, 64) // none, or nonsense: from now on
	b.watchRunning(ctx)
	for {
		last, err := b.c.Events(ctx, api.Events{After: after, Follow: true}, func(e api.Event) error {
			b.last.Store(e.Seq)
			if e.Type == api.EventOperationBegun {
				go b.watch(ctx, e.ID)
			}
			b.mark()
			return nil
		})
		if kind := errkind.Of(err); after == 0 || kind != api.KindPrecondition && kind != api.KindInvalid {
			return err
		}
		b.last.Store(last)
		after = 0
		b.mark()
	}
}

// watchRunning watches the operations that run already.
func (b *browser) watchRunning(ctx context.Context) {
	ops, err := b.c.OperationList(ctx)
	if err != nil {
		return // the daemon is going away, which follow sees too
	}
	for _, op := range ops {
		if !op.State.Done() {
			go b.watch(ctx, op.ID)
		}
	}
}

// watch marks the stages of an operation; its end is an event.
func (b *browser) watch(ctx context.Context, id string) {
	b.c.OperationWatch(ctx, id, func(api.Operation) error { b.mark(); return nil }) //nolint:errcheck // its end, or the browser's
}

// tell writes messages until ctx ends or the browser is gone: a change at once and then not before the interval is over.
func (b *browser) tell(ctx context.Context, every time.Duration) error {
	if err := b.send("retry: 1000\n\n"); err != nil {
		return err
	}
	stats := time.NewTicker(b.stats)
	defer stats.Stop()
	pause := time.NewTimer(0)
	defer pause.Stop()
	dirty := (<-chan struct{})(nil) // not listened to while pausing
	for {
		var err error
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-pause.C:
			dirty = b.dirty
		case <-dirty:
			err = b.send(fmt.Sprintf("event: change\nid: %d\ndata: {}\n\n", b.last.Load()))
			dirty = nil
			pause.Reset(every)
		case <-stats.C:
			err = b.sendStats(ctx)
		}
		if err != nil {
			return err
		}
	}
}

func (b *browser) sendStats(ctx context.Context) error {
	list, err := b.c.VMStats(ctx)
	if err != nil {
		return err
	}
	data, err := json.Marshal(list)
	if err != nil {
		return err
	}
	return b.send("event: stats\ndata: " + string(data) + "\n\n")
}

func (b *browser) send(message string) error {
	if _, err := b.w.Write([]byte(message)); err != nil {
		return err
	}
	return b.control.Flush()
}
