// Package guest breaks a rule.
package guest

import (
	_ "github.com/banger-vm/banger/internal/agent"
)
