package proc

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/banger-vm/banger/api/frame"
)

// OutputError is a command of the agent's own that ended with a failure.
type OutputError struct {
	Argv   []string
	Status frame.ExitStatus
	Stderr string // the end of what it wrote to standard error, at most 16 KiB
}

func (e *OutputError) Error() string {
	msg := fmt.Sprintf("%s: exit status %d", filepath.Base(e.Argv[0]), e.Status.Code)
	if e.Status.Signal != "" {
		msg = fmt.Sprintf("%s: killed by SIG%s", filepath.Base(e.Argv[0]), e.Status.Signal)
	}
	text := strings.TrimSpace(e.Stderr)
	if last := text[strings.LastIndexByte(text, '\n')+1:]; last != "" {
		msg += ": " + last
	}
	return msg
}

// Output runs spec to its end and returns what it wrote to standard output, all of it in memory; nothing when spec takes
// Stdout itself. Standard error is kept for the error when spec does not take it. A command that fails is an
// [*OutputError]; one that cannot be run is an [*ExecError]. When ctx ends, the command is killed and the error is ctx's.
func (s *Supervisor) Output(ctx context.Context, spec Spec) ([]byte, error) {
	var out bytes.Buffer
	var tail tailBuffer
	if spec.Stdout == nil {
		spec.Stdout = &out
	}
	if spec.Stderr == nil {
		spec.Stderr = &tail
	}
	p, err := s.Start(ctx, spec)
	if err != nil {
		return nil, err
	}
	status := p.Wait()
	if ctx.Err() != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Base(spec.Argv[0]), context.Cause(ctx))
	}
	if status.Code != 0 {
		return out.Bytes(), &OutputError{Argv: spec.Argv, Status: status, Stderr: string(tail)}
	}
	return out.Bytes(), nil
}

const tailLimit = 16 << 10

// tailBuffer keeps the last tailLimit bytes written to it.
type tailBuffer []byte

func (t *tailBuffer) Write(p []byte) (int, error) {
	*t = append(*t, p...)
	if extra := len(*t) - tailLimit; extra > 0 {
		*t = append((*t)[:0], (*t)[extra:]...)
	}
	return len(p), nil
}
