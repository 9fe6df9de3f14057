// Command banger-agent is banger's program inside the guest: /init of the initramfs, and the guest's end of the control
// channel. See package agent.
package main

import (
	"os"

	"github.com/banger-vm/banger/internal/agent"
)

// version is set by the linker.
var version = "dev"

func main() { os.Exit(agent.Main(os.Args, version)) }
