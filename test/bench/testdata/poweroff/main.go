// Command poweroff is the floor's /init: it ends the machine as soon as the kernel has started it.
package main

import (
	"os"
	"syscall"
)

func main() {
	err := syscall.Reboot(syscall.LINUX_REBOOT_CMD_POWER_OFF)
	os.Stderr.WriteString("power off: " + err.Error() + "\n") // it does not return otherwise; the kernel panics when init ends
}
