// Package disk breaks a rule.
package disk

import (
	_ "github.com/banger-vm/banger/internal/disk/disktest"
)
