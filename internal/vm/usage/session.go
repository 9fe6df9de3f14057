package usage

import (
	"context"
	"slices"
	"time"

	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/guest"
)

// sessionPatience bounds what a guest may take to tell of its sessions; one that does not answer has none that anybody could use.
const sessionPatience = 2 * time.Second

// InSession asks a guest whether a session runs in it. It does not matter whether anybody is attached: sessions are for work that goes
// on by itself.
func InSession(ctx context.Context, link *guest.Link) bool {
	ctx, cancel := context.WithTimeout(ctx, sessionPatience)
	defer cancel()
	var list guestapi.SessionList
	conn, err := link.Get(ctx)
	if err == nil {
		err = conn.Call(ctx, guestapi.MethodSessionList, nil, &list)
	}
	return err == nil && slices.ContainsFunc(list.Sessions, func(s guestapi.Session) bool { return !s.State.Done() })
}
