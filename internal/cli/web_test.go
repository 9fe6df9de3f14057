package cli_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/cli/fakedaemon"
	"github.com/banger-vm/banger/internal/errkind"
)

func TestWeb(t *testing.T) {
	const link = "http://127.0.0.1:7777/login?ticket=X"
	d := fakedaemon.Start(t)
	d.Result(api.MethodWebLogin, api.WebLogin{URL: link})
	t.Run("prints the link", func(t *testing.T) {
		if c := banger(t, d).ok("web"); c.stdout != link+"\n" {
			t.Errorf("got %q", c.stdout)
		}
	})
	t.Run("opens it", func(t *testing.T) {
		dir := t.TempDir()
		opener := filepath.Join(dir, "xdg-open")
		if err := os.WriteFile(opener, []byte("#!/bin/sh\necho \"$1\" >"+dir+"/opened\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
		banger(t, d).ok("web", "--open")
		if got, err := os.ReadFile(filepath.Join(dir, "opened")); err != nil || strings.TrimSpace(string(got)) != link {
			t.Errorf("opened %q, %v", got, err)
		}
	})
	t.Run("without a browser the link is printed all the same", func(t *testing.T) {
		t.Setenv("PATH", t.TempDir())
		c := banger(t, d).fails(69, "open the link above yourself", "web", "--open")
		if c.stdout != link+"\n" {
			t.Errorf("printed %q", c.stdout)
		}
	})
	t.Run("says why there are no pages", func(t *testing.T) {
		d.Error(api.MethodWebLogin, errkind.WithHint(errkind.New(api.KindPrecondition, "the web UI is off"), "set web_listen"))
		banger(t, d).fails(78, "set web_listen", "web")
	})
}
