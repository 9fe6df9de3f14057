// Command guest is /init of the guest of the conformance suite, see package vmmtest. It ends itself as the agent does.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/agent/control"
	"github.com/banger-vm/banger/internal/agent/power"
	"github.com/banger-vm/banger/internal/vmm/vmmtest"
	"golang.org/x/sys/unix"
)

func main() {
	if err := serve(); err != nil {
		fmt.Println("guest:", err)
	}
	os.Exit(1) // the kernel panics when its init ends
}

func serve() error {
	for _, m := range [][2]string{{"sysfs", "/sys"}, {"devtmpfs", "/dev"}} {
		if err := unix.Mount(m[0], m[1], m[0], 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m[1], err)
		}
	}
	b, err := os.ReadFile("/vm.json")
	if err != nil {
		return err
	}
	var cfg guestapi.BootConfig
	if err := json.Unmarshal(b, &cfg); err != nil {
		return err
	}
	if cfg.Name == "mute" {
		select {} // a guest that never answers
	}
	for _, path := range cfg.Modules {
		if strings.Contains(path, "vsock") && !control.HasVsock() {
			continue // they come after those of the bus
		}
		if err := load(path); err != nil {
			return fmt.Errorf("load %s: %w", path, err)
		}
	}
	if control.HasVsock() {
		return serveVsock()
	}
	return servePort()
}

func servePort() error {
	port, err := openPort()
	if err != nil {
		return err
	}
	memory := new(vmmtest.Guest)
	for {
		if err := port.WaitHost(context.Background()); err != nil {
			return err
		}
		answer(memory, keepOpen{port})
	}
}

func serveVsock() error {
	l, err := control.OpenVsock()
	if err != nil {
		return err
	}
	memory := new(vmmtest.Guest)
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go answer(memory, conn)
	}
}

func answer(memory *vmmtest.Guest, conn net.Conn) {
	memory.Serve(context.Background(), conn, func(text string) { fmt.Print(text) }, end)
}

// keepOpen keeps the port open for the next connection.
type keepOpen struct{ *control.Port }

func (keepOpen) Close() error { return nil }

func load(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.FinitModule(int(f.Fd()), "", 0)
}

// openPort waits for the kernel to find the port.
func openPort() (*control.Port, error) {
	for range 1000 {
		port, err := control.OpenPort(guestapi.PortName)
		if err == nil {
			return port, nil
		}
		time.Sleep(5 * time.Millisecond)
	}
	return nil, errors.New("no port")
}

func end(how string) {
	switch how {
	case "power-off":
		power.Off(slog.New(slog.DiscardHandler))
	case "halt":
		unix.Reboot(unix.LINUX_REBOOT_CMD_HALT)
	case "reboot":
		unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	}
	os.Exit(1)
}
