// Package client breaks a rule.
package client

import (
	_ "github.com/banger-vm/banger/internal/errkind"
)
