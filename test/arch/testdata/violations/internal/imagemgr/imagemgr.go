// Package imagemgr breaks a rule.
package imagemgr

import (
	_ "github.com/banger-vm/banger/internal/vm/capability"
)
