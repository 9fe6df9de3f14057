// Package cli breaks a rule.
package cli

import (
	_ "github.com/banger-vm/banger/internal/opstate"
	_ "os/exec"
)
