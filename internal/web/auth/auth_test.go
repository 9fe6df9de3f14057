package auth

import (
	"net/http"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

func TestTickets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, err := Open(filepath.Join(t.TempDir(), "key"), func(http.ResponseWriter, *http.Request) {})
		if err != nil {
			t.Fatal(err)
		}
		first := g.Ticket()
		time.Sleep(time.Second)
		var last string
		for range maxTickets {
			last = g.Ticket()
			time.Sleep(time.Second)
		}
		if g.trade(first) {
			t.Error("the oldest of too many is good")
		}
		if !g.trade(last) || g.trade(last) {
			t.Error("a ticket is not good once")
		}
		late := g.Ticket()
		time.Sleep(TicketLife)
		if g.trade(late) {
			t.Error("a ticket is good for longer than its life")
		}
	})
}
