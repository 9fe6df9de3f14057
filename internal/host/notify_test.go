package host

import (
	"net"
	"path/filepath"
	"testing"
)

func TestNotify(t *testing.T) {
	path := filepath.Join(t.TempDir(), "n")
	for _, name := range []string{path, "@banger-notify-test" + filepath.Base(t.TempDir())} {
		t.Run("a state arrives as one datagram at "+name[:1], func(t *testing.T) {
			l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			t.Setenv("NOTIFY_SOCKET", name)
			if err := Notify("READY=1"); err != nil {
				t.Fatal(err)
			}
			b := make([]byte, 64)
			n, err := l.Read(b)
			if err != nil || string(b[:n]) != "READY=1" {
				t.Errorf("got %q (%v)", b[:n], err)
			}
		})
	}
	t.Run("without a service manager nothing happens, and one that is gone is an error", func(t *testing.T) {
		t.Setenv("NOTIFY_SOCKET", "")
		if err := Notify("READY=1"); err != nil {
			t.Error(err)
		}
		t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "none"))
		if err := Notify("READY=1"); err == nil {
			t.Error("no error")
		}
	})
}
