// Package store breaks a rule.
package store

import (
	_ "github.com/banger-vm/banger/internal/imagemgr"
	_ "github.com/banger-vm/banger/internal/opstate"
)
