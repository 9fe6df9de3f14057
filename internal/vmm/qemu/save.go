package qemu

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/vmm"
	"github.com/banger-vm/banger/internal/vmm/qemu/qmp"
)

// A machine is saved and restored by QEMU's migration (docs/devel/migration.rst, qapi/migration.json), to a file and from it. The
// guest's memory is a file of its own, which the capability x-ignore-shared keeps out of the stream: what is left is some 80 kB.
// QEMU gets the stream's file as an open descriptor; to open one by itself it would run a program, which its sandbox forbids.

// stream is the name under which QEMU knows the file of the migration's stream.
const stream = "stream"

// Save implements vmm.Saver.
func (m *machine) Save(ctx context.Context, state string) (err error) {
	f, err := os.OpenFile(state, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, os.ErrExist) {
		return errkind.New(api.KindExists, "save a machine: %s exists", state)
	}
	if err != nil {
		return fmt.Errorf("save a machine: %w", err)
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			err = errors.Join(fmt.Errorf("save a machine: %w", err), os.Remove(state))
		}
	}()
	q, err := m.monitored()
	if err != nil {
		return err
	}
	if err := q.Do(ctx, "stop", nil, nil); err != nil {
		return err
	}
	if err := migrate(ctx, q, "migrate", f); err != nil {
		return err
	}
	return f.Sync()
}

// restore loads what Save has written into a QEMU that waits for it, tells the guest how large its disks are now, and lets it go on.
func (m *machine) restore(ctx context.Context, from vmm.Saved) error {
	f, err := os.Open(from.State)
	if err != nil {
		return fmt.Errorf("restore a machine: %w", err)
	}
	defer f.Close()
	q, err := m.monitored()
	if err != nil {
		return err
	}
	for _, step := range []func() error{
		func() error { return migrate(ctx, q, "migrate-incoming", f) },
		func() error { return tellSizes(ctx, q) },
		func() error { return q.Do(ctx, "cont", nil, nil) },
	} {
		if err := step(); err != nil {
			return m.notRestored(err)
		}
	}
	return nil
}

// notRestored says why: a QEMU that cannot read what it is given ends, and the connection with it.
func (m *machine) notRestored(err error) error {
	if errors.Is(err, net.ErrClosed) {
		select {
		case <-m.Exited():
			err = errkind.New(api.KindDataLoss, "%s", m.Exit().Reason)
		case <-time.After(lastWords):
		}
	}
	return fmt.Errorf("restore a machine: %w", err)
}

func (m *machine) monitored() (*qmp.Client, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.client == nil {
		return nil, errkind.New(api.KindUnavailable, "the machine has no QMP connection")
	}
	return m.client, nil
}

// migrate runs one of the two commands on f and waits for its end.
func migrate(ctx context.Context, q *qmp.Client, command string, f *os.File) error {
	type capability struct {
		Capability string `json:"capability"`
		State      bool   `json:"state"`
	}
	capabilities := map[string][]capability{"capabilities": {{"x-ignore-shared", true}}}
	if err := q.Do(ctx, "migrate-set-capabilities", capabilities, nil); err != nil {
		return err
	}
	if err := q.PassFile(ctx, stream, f); err != nil {
		return err
	}
	if err := q.Do(ctx, command, map[string]string{"uri": "fd:" + stream}, nil); err != nil {
		return err
	}
	for pause := 500 * time.Microsecond; ; pause = min(2*pause, 20*time.Millisecond) {
		var at struct {
			Status string `json:"status"`
			Why    string `json:"error-desc"`
		}
		if err := q.Do(ctx, "query-migrate", nil, &at); err != nil {
			return err // an incoming one that fails ends QEMU, which says why in its log
		}
		switch at.Status {
		case "completed":
			return nil
		case "failed", "cancelled":
			return fmt.Errorf("%s %s: %s", command, at.Status, at.Why)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", command, ctx.Err())
		}
	}
}

// tellSizes tells the guest the sizes of its disks, which may have grown since it was saved.
func tellSizes(ctx context.Context, q *qmp.Client) error {
	var disks []struct {
		Device   string `json:"device"`
		Inserted struct {
			ReadOnly bool `json:"ro"`
			Image    struct {
				Size int64 `json:"virtual-size"`
			} `json:"image"`
		} `json:"inserted"`
	}
	if err := q.Do(ctx, "query-block", nil, &disks); err != nil {
		return err
	}
	for _, d := range disks {
		if d.Inserted.ReadOnly {
			continue
		}
		// The size is the one that QEMU has; the command is there for the interrupt that it sends (virtio-blk's configuration change).
		if err := q.Do(ctx, "block_resize", map[string]any{"device": d.Device, "size": d.Inserted.Image.Size}, nil); err != nil {
			return err
		}
	}
	return nil
}
