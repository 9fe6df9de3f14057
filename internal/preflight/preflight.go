// Package preflight is the contract of checks: questions about this host and banger's files that a start of a VM asks before
// it makes anything, and `banger doctor` on demand.
//
// A [Check] looks and changes nothing. What is wrong it tells as [Problem]s, all of them at once, each with what to do. A
// start refuses with what [Refusal] returns; doctor shows what [Report] returns, and may put right what is safe to.
//
// Whoever owns a thing offers the checks of it; the questions that several owners ask are here ([Image], [Kernel],
// [Space], [Directories], [Programs]).
package preflight

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

// Problem is one thing that is wrong.
type Problem struct {
	Detail string       // what is so, and of what; no sentence, so that several can be joined
	Fix    string       // what to do about it, likewise
	Minor  bool         // VMs run all the same
	Kind   errkind.Kind // of the error with which a start refuses; empty: unavailable
	// Mend puts it right, and says what it did. It is for what is safe: nothing of the user's is touched, and a mend that came
	// too late does nothing. nil: that is for a person.
	Mend func(ctx context.Context) (done string, err error)
}

// Check is one question.
type Check struct {
	Name string // a word or two with hyphens, stable
	// Ask returns in words what is so, and everything that is wrong. It ends when ctx does.
	Ask func(ctx context.Context) (string, []Problem)
	// Limit bounds Ask, so that a check that hangs is a finding and not a hang; zero: [DefaultLimit].
	Limit time.Duration
}

// DefaultLimit is how long a check may take, unless it says otherwise.
const DefaultLimit = 20 * time.Second

// Failed is the answer of a check that could not find out.
func Failed(err error) (string, []Problem) {
	fix := errkind.Hint(err)
	if fix == "" {
		fix = "see the daemon's log: `banger daemon logs`"
	}
	return "", []Problem{{Detail: err.Error(), Fix: fix}}
}

// Refusal asks the checks and returns what [Refuse] makes of everything that they find.
func Refusal(ctx context.Context, checks []Check) error {
	var all []Problem
	for _, c := range checks {
		_, found := c.ask(ctx)
		all = append(all, found...)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return Refuse(all)
}

// Refuse returns what keeps a VM from running as one error, of the first problem's kind and with the fixes as its hint; nil when
// nothing does.
func Refuse(found []Problem) error {
	var details, fixes []string
	var kind errkind.Kind
	for _, p := range found {
		if p.Minor {
			continue
		}
		details, kind = append(details, p.Detail), cmp.Or(kind, p.Kind, api.KindUnavailable)
		if p.Fix != "" && !slices.Contains(fixes, p.Fix) {
			fixes = append(fixes, p.Fix)
		}
	}
	if len(details) == 0 {
		return nil
	}
	return errkind.WithHint(errkind.New(kind, "%s", strings.Join(details, "; ")), "%s", strings.Join(fixes, "; "))
}

func (c Check) ask(ctx context.Context) (string, []Problem) {
	limit := c.Limit
	if limit == 0 {
		limit = DefaultLimit
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("check %s has not ended within %v", c.Name, limit))
	defer cancel()
	return c.Ask(ctx)
}

// The statuses of a finding.
const (
	OK    = "ok"
	Warn  = "warn"
	Fail  = "fail"
	Fixed = "fixed"
)

// Report asks the checks in order. A check that finds nothing wrong gives one finding, any other one for each problem. With
// mend, problems that can be put right are; the finding then says what was done.
func Report(ctx context.Context, checks []Check, mend bool) []api.Check {
	var all []api.Check
	for _, c := range checks {
		detail, found := c.ask(ctx)
		if len(found) == 0 {
			all = append(all, api.Check{Name: c.Name, Status: OK, Detail: detail})
		}
		for _, p := range found {
			all = append(all, finding(ctx, c.Name, p, mend))
		}
	}
	return all
}

func finding(ctx context.Context, name string, p Problem, mend bool) api.Check {
	f := api.Check{Name: name, Status: Fail, Detail: p.Detail, Fix: p.Fix, Fixable: p.Mend != nil}
	if p.Minor {
		f.Status = Warn
	}
	if p.Mend == nil || !mend {
		return f
	}
	done, err := p.Mend(ctx)
	if err != nil {
		f.Detail += "; to fix it failed: " + err.Error()
		if hint := errkind.Hint(err); hint != "" {
			f.Fix = hint
		}
		return f
	}
	return api.Check{Name: name, Status: Fixed, Detail: p.Detail + ": " + done}
}
