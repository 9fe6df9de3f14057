// Package doctor runs checks of the host and the daemon. A check tests an end result, as a user would meet it, and each
// finding says what to do.
package doctor

import (
	"context"
	"fmt"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

// The statuses of a finding.
const (
	OK   = "ok"
	Warn = "warn"
	Fail = "fail"
)

// Check is one question. Ask returns what is so, in words; an error means that it is not well, and its hint is the fix.
// An error marked with [Warning] does not keep VMs from running.
type Check struct {
	Name string
	Ask  func(ctx context.Context) (string, error)
}

// checkTimeout bounds one check, so that a hanging one is a finding and not a hang.
const checkTimeout = 20 * time.Second

// Run runs the checks in order.
func Run(ctx context.Context, checks []Check) api.Doctor {
	var d api.Doctor
	for _, c := range checks {
		d.Checks = append(d.Checks, run(ctx, c))
	}
	return d
}

func run(ctx context.Context, c Check) api.Check {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	detail, err := c.Ask(ctx)
	if err == nil {
		return api.Check{Name: c.Name, Status: OK, Detail: detail}
	}
	status := Fail
	if _, ok := err.(warning); ok {
		status = Warn
	}
	return api.Check{Name: c.Name, Status: status, Detail: err.Error(), Fix: errkind.Hint(err)}
}

type warning struct{ error }

func (w warning) Unwrap() error { return w.error }

// Warning returns a finding that does not keep VMs from running: what is so, and what to do about it.
func Warning(fix, format string, args ...any) error {
	return warning{errkind.WithHint(fmt.Errorf(format, args...), "%s", fix)}
}
