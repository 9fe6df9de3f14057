// Package daemon breaks a rule.
package daemon

import (
	_ "github.com/banger-vm/banger/internal/cli"
	_ "github.com/banger-vm/banger/internal/vmm/fake"
	_ "testing"
)
