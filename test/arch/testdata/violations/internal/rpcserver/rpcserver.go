// Package rpcserver breaks a rule.
package rpcserver

import (
	_ "github.com/banger-vm/banger/internal/store"
	_ "github.com/banger-vm/banger/internal/vm"
)
