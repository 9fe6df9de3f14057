package client

import (
	"errors"
	"testing"

	"github.com/banger-vm/banger/api"
)

func TestTheDaemonMustBeTheCallersOrRoots(t *testing.T) {
	for _, c := range []struct {
		owner, caller int
		ok            bool
	}{{1000, 1000, true}, {0, 1000, true}, {1001, 1000, false}, {1000, 0, false}} {
		err := checkOwner("/s", c.owner, c.caller)
		var e *api.Error
		if (err == nil) != c.ok || err != nil && (!errors.As(err, &e) || e.Kind != api.KindPermission || e.Hint == "") {
			t.Errorf("owner %d, caller %d: %v", c.owner, c.caller, err)
		}
	}
}
