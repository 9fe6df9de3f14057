package rpcserver

import (
	"context"
	"reflect"
	"slices"
	"strings"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

// Events is the stored stream of events.
type Events interface {
	// Resume turns a client's token into the Seq after which to read.
	ResumeEvents(ctx context.Context, token int64) (int64, error)
	// Events returns at most limit events after that Seq, oldest first.
	Events(ctx context.Context, after int64, limit int) ([]api.Event, error)
	// NextEvent returns a channel that is closed when another event is stored.
	NextEvent() <-chan struct{}
}

func eventMethods(s Services) []Method {
	return []Method{
		Stream[api.Events, api.EventsReply](Read, Lines, api.MethodEvents,
			"Sends what happens, in order, from a resume token on; each line is an event.",
			func(ctx context.Context, p api.Events, c *Conn) error { return sendEvents(ctx, s.Events, p, c) }).
			each(reflect.TypeFor[api.Event]()),
	}
}

// eventBatch is how many events are read at once.
const eventBatch = 256

func sendEvents(ctx context.Context, log Events, p api.Events, c *Conn) error {
	if err := checkTypes(p.Types); err != nil {
		return err
	}
	after, err := log.ResumeEvents(ctx, p.After)
	if err != nil {
		return err
	}
	if err := c.Accept(api.EventsReply{Last: after}); err != nil {
		return err
	}
	ctx = c.untilHangUp(ctx)
	for {
		next := log.NextEvent()
		batch, err := log.Events(ctx, after, eventBatch)
		if err != nil {
			return err
		}
		for _, e := range batch {
			after = e.Seq
			if !wanted(e, p) {
				continue
			}
			if err := api.WriteLine(c, e); err != nil {
				return err
			}
		}
		if len(batch) == eventBatch {
			continue
		}
		if !p.Follow {
			return nil
		}
		select {
		case <-next:
		case <-ctx.Done():
			return nil
		}
	}
}

// checkTypes refuses a type, or noun of types, that there is not.
func checkTypes(types []string) error {
	for _, want := range types {
		if !slices.ContainsFunc(api.EventTypes(), func(t api.EventType) bool { return matches(t, want) }) {
			var all []string
			for _, t := range api.EventTypes() {
				all = append(all, string(t))
			}
			return errkind.WithHint(errkind.New(api.KindInvalid, "there is no event type %q", want), "the types are %s", strings.Join(all, ", "))
		}
	}
	return nil
}

// matches reports whether t is the type, or of the noun, want.
func matches(t api.EventType, want string) bool {
	noun, _, _ := strings.Cut(string(t), ".")
	return string(t) == want || noun == want
}

func wanted(e api.Event, p api.Events) bool {
	if p.Subject != "" && p.Subject != e.ID && p.Subject != e.Name {
		return false
	}
	return len(p.Types) == 0 || slices.ContainsFunc(p.Types, func(want string) bool { return matches(e.Type, want) })
}
