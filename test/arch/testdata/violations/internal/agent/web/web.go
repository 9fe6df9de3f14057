// Package web breaks a rule.
package web

import (
	_ "github.com/banger-vm/banger/internal/opstate"
	_ "net/http"
)
