// Package api breaks a rule.
package api

import (
	_ "example.org/other"
)
