package host

import (
	"fmt"
	"net"
	"os"
)

// Notify tells the service manager that started this process a state, such as READY=1 or STOPPING=1 (sd_notify(3)). Without
// one it does nothing.
func Notify(state string) error {
	socket := os.Getenv("NOTIFY_SOCKET") // with @ for one in the abstract name space, as package net has it
	if socket == "" {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("notify the service manager: %w", err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(state)); err != nil {
		return fmt.Errorf("notify the service manager: %w", err)
	}
	return nil
}
