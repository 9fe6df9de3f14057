package qemu

import (
	"context"
	"fmt"
)

// Pause implements vmm.Pauser.
func (m *machine) Pause(ctx context.Context) error { return m.command(ctx, "pause", "stop") }

// Resume implements vmm.Pauser.
func (m *machine) Resume(ctx context.Context) error { return m.command(ctx, "resume", "cont") }

// command executes a command of QMP that needs nothing and returns nothing (qapi/misc.json).
func (m *machine) command(ctx context.Context, what, name string) error {
	q, err := m.monitored()
	if err == nil {
		err = q.Do(ctx, name, nil, nil)
	}
	if err != nil {
		return fmt.Errorf("%s machine: %w", what, err)
	}
	return nil
}
