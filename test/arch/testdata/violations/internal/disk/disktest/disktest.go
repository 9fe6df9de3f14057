// Package disktest breaks a rule.
package disktest

import (
	_ "testing"
)
