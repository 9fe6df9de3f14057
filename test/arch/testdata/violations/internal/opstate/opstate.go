// Package opstate breaks a rule.
package opstate

import (
	_ "github.com/banger-vm/banger/internal/disk/ext4"
	_ "github.com/banger-vm/banger/internal/vmm"
)
