// Package agent breaks a rule.
package agent

import (
	_ "github.com/banger-vm/banger/internal/agent/web"
)
