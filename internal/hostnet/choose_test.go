package hostnet

import (
	"errors"
	"strings"
	"testing"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

func TestChoose(t *testing.T) {
	bar := []error{errkind.WithHint(errors.New("no tun"), "load the module")}
	for _, tt := range []struct {
		what  string
		facts Facts
		want  string
	}{
		{"an ordinary daemon leaves the host's network alone", Facts{Forced: "auto"}, ModeUser},
		{"the system's daemon bridges", Facts{Forced: "auto", System: true}, ModeBridge},
		{"but not where it cannot", Facts{Forced: "auto", System: true, Bars: bar}, ModeUser},
		{"what is configured holds for the system's daemon", Facts{Forced: "user", System: true}, ModeUser},
		{"and for any other", Facts{Forced: "bridge"}, ModeBridge},
	} {
		t.Run(tt.what, func(t *testing.T) {
			c, err := Choose(tt.facts)
			if err != nil || c.Mode != tt.want || c.Why == "" {
				t.Errorf("got %+v %v, want %s", c, err, tt.want)
			}
			if tt.facts.System && len(tt.facts.Bars) > 0 && !strings.Contains(c.Why, "no tun") {
				t.Errorf("why: %s", c.Why)
			}
		})
	}
	t.Run("a bridge that is asked for and cannot be is an error that says why and what to do", func(t *testing.T) {
		_, err := Choose(Facts{Forced: "bridge", Bars: bar})
		if !errkind.Is(err, api.KindUnavailable) || !strings.Contains(err.Error(), "no tun") || !strings.Contains(errkind.Hint(err), "load the module") {
			t.Errorf("got %v, hint %q", err, errkind.Hint(err))
		}
	})
}
