package fctest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/vmm/vmmtest"
)

func readable(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return f.Close()
}

// osError words an error as Rust's standard library does.
func osError(err error) string {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return err.Error()
	}
	text := errno.Error()
	if errors.Is(err, fs.ErrNotExist) {
		text = "no such file or directory"
	}
	return fmt.Sprintf("%s%s (os error %d)", strings.ToUpper(text[:1]), text[1:], int(errno))
}

// serveVsock leads connections to the guest's port (docs/vsock.md of Firecracker). Two come too early: the first meets a guest without a
// driver and is never answered, the second one in which nobody listens, and is closed.
func serveVsock(l net.Listener) {
	for n := 1; ; n++ {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		if n > 1 {
			go lead(conn, n == 2)
		}
	}
}

func lead(conn net.Conn, early bool) {
	in := bufio.NewReader(conn)
	line, err := in.ReadString('\n')
	if err != nil || early || line != fmt.Sprintf("CONNECT %d\n", guestapi.VsockPort) {
		conn.Close()
		return
	}
	fmt.Fprintf(conn, "OK %d\n", 1<<30)
	new(vmmtest.Guest).Serve(context.Background(), buffered{conn, in}, func(text string) { fmt.Print(text) }, end)
}

// buffered is a connection of which something was read already.
type buffered struct {
	net.Conn
	in *bufio.Reader
}

func (b buffered) Read(p []byte) (int, error) { return b.in.Read(p) }

// end ends the guest as Linux does on a machine that cannot power off. Every reset is a good end for Firecracker.
func end(how string) {
	const at = "[    1.234567] "
	switch how {
	case "power-off":
		fmt.Printf(at+"reboot: Restarting system with command '%s'\n", guestapi.PowerOffRestart)
	case "reboot":
		fmt.Print(at + "reboot: Restarting system\n")
	case "panic":
		fmt.Print(at + "Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100\n")
	case "halt":
		fmt.Print(at + "reboot: System halted\n")
		return
	}
	os.Exit(0)
}
