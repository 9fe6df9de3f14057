package config_test

import (
	"testing"

	"github.com/banger-vm/banger/internal/config"
)

func TestWebAddress(t *testing.T) {
	for _, c := range []struct {
		name, listen string
		paths        config.Paths
		want         string
	}{
		{"a user's daemon has the known port", "auto", config.Paths{}, "127.0.0.1:7777"},
		{"one below BANGER_ROOT has a port that is free", "auto", config.Paths{Root: "/tmp/b"}, "127.0.0.1:0"},
		{"the system's has none", "auto", config.SystemPaths(), ""},
		{"unless it is given one", "127.0.0.1:80", config.SystemPaths(), "127.0.0.1:80"},
		{"off is nowhere", "off", config.Paths{}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := config.Default()
			cfg.WebListen = c.listen
			if got := cfg.WebAddress(c.paths); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}
