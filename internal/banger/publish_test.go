package banger

import (
	"testing"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

func TestParsePublish(t *testing.T) {
	for text, want := range map[string]string{
		"8080:80":           "127.0.0.1:8080:80",
		"80":                "127.0.0.1:80:80",
		"0.0.0.0:8080:80":   "0.0.0.0:8080:80",
		"[::1]:8080:80":     "[::1]:8080:80",
		"192.0.2.1:1:65535": "192.0.2.1:1:65535",
	} {
		t.Run("reads "+text, func(t *testing.T) {
			p, err := ParsePublish(text)
			if err != nil || p.String() != want {
				t.Fatalf("got %v %v, want %s", p, err, want)
			}
			if again, err := ParsePublish(p.String()); err != nil || again != p {
				t.Errorf("its text is read as %v %v", again, err)
			}
		})
	}
	for _, text := range []string{"", ":", "80:", ":80", "0:80", "80:0", "http:80", "65536:80", "::1:80:80", "host:80:80", "[127.0.0.1]:80:80", "1:2:3:4"} {
		t.Run("refuses "+text, func(t *testing.T) {
			p, err := ParsePublish(text)
			if !errkind.Is(err, api.KindInvalid) || errkind.Hint(err) == "" {
				t.Errorf("got %v %v", p, err)
			}
		})
	}
}
