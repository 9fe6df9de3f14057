// Package host breaks a rule.
package host

import (
	_ "github.com/banger-vm/banger/internal/store"
	_ "os/exec"
)
