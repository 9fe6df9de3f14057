// Package doctor breaks a rule.
package doctor

import (
	_ "github.com/banger-vm/banger/internal/daemon"
)
