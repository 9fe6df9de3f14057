// Command banger is banger's command line.
package main

import (
	"os"

	"github.com/banger-vm/banger/internal/cli"
)

// version is set by the linker (-X main.version=…).
var version = "devel"

func main() { os.Exit(cli.Main(version)) }
