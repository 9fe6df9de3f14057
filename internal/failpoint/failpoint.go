// Package failpoint makes named steps fail on purpose, so that tests can show what is left after a fault at each of them.
//
// A set is written as comma-separated NAME=ACTION. Actions: "error" (the step fails), "kill" (the process kills itself with
// SIGKILL, as a crash would), "delay:DURATION". The daemon takes its set from the environment variable BANGER_FAILPOINTS;
// an empty set costs one map look-up.
package failpoint

import (
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

// Set maps step names to actions. A nil Set does nothing.
type Set map[string]string

// Parse reads a set.
func Parse(s string) (Set, error) {
	set := Set{}
	for item := range strings.SplitSeq(s, ",") {
		if item == "" {
			continue
		}
		name, action, ok := strings.Cut(item, "=")
		verb, arg, _ := strings.Cut(action, ":")
		_, err := time.ParseDuration(arg)
		if !ok || (verb != "error" && verb != "kill" && (verb != "delay" || err != nil)) {
			return nil, errkind.New(api.KindInvalid, "failpoint %q: want NAME=error, NAME=kill or NAME=delay:DURATION", item)
		}
		set[name] = action
	}
	return set, nil
}

// Hit acts as the set says for the step name. The injected error is of kind internal.
func (s Set) Hit(ctx context.Context, name string) error {
	action, ok := s[name]
	if !ok {
		return nil
	}
	verb, arg, _ := strings.Cut(action, ":")
	switch verb {
	case "kill":
		return fmt.Errorf("failpoint %s: %w", name, syscall.Kill(os.Getpid(), syscall.SIGKILL))
	case "delay":
		d, err := time.ParseDuration(arg)
		if err != nil {
			return err
		}
		select {
		case <-time.After(d):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return errkind.New(api.KindInternal, "failpoint %s", name)
}
