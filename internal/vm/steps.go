package vm

import "context"

// The named steps of the service, each a failpoint, where a crash leaves something for Reconcile. Those of the chain come in
// between.
const (
	stepReserved   = "create.reserved"    // the record is written, pending
	stepStarting   = "start.starting"     // the record says starting
	stepStopping   = "stop.stopping"      // the record says stopping
	stepPoweredOff = "stop.powered-off"   // the guest has powered off, or was given up
	stepPaused     = "pause.recorded"     // the record says paused, the machine runs
	stepResumed    = "resume.resumed"     // the machine runs, the record says paused
	stepSet        = "set.recorded"       // the record has the new specification
	stepDeleting   = "delete.deleting"    // nothing is removed yet
	stepDestroyed  = "delete.destroyed"   // the disks are gone
	stepRemoved    = "delete.directories" // the directories are gone; the record is there
)

// Steps returns the names of the service's failpoints, for fault tests.
func Steps() []string {
	return []string{
		stepReserved, stepStarting, stepStopping, stepPoweredOff, stepPaused, stepResumed, stepSet, stepDeleting, stepDestroyed, stepRemoved,
	}
}

func (s *Service) step(ctx context.Context, name string) error { return s.cfg.Points.Hit(ctx, name) }
