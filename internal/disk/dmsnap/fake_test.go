package dmsnap_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/disk"
	"github.com/banger-vm/banger/internal/disk/dmsnap"
	"github.com/banger-vm/banger/internal/disk/dmsnap/dm"
	"github.com/banger-vm/banger/internal/errkind"
	"golang.org/x/sys/unix"
)

// kernel is a device mapper and a loop driver in memory. Bytes that are written to a snapshot are kept in it, by the path of
// the store; a host that boots again keeps them and forgets the devices.
type kernel struct {
	devices map[string]*device
	loops   map[string]*loop  // by path
	stores  map[string][]byte // what a snapshot with that store reads, from its first use on
	invalid map[string]bool   // stores that could not be written
	numbers int
	calls   []string                // what was called
	fault   func(call string) error // before each call; nil: none
}

type device struct {
	node           string
	loaded, active []dm.Target
	users          int // who has it open: remove finds it busy that often
}

type loop struct {
	k      *kernel
	path   string
	number string
	opens  int
}

func newKernel() *kernel {
	return &kernel{devices: map[string]*device{}, loops: map[string]*loop{}, stores: map[string][]byte{}, invalid: map[string]bool{}}
}

func (k *kernel) call(name string) error {
	k.calls = append(k.calls, name)
	if k.fault != nil {
		return k.fault(name)
	}
	return nil
}

// reboot is the host's.
func (k *kernel) reboot() { clear(k.devices); clear(k.loops) }

func (k *kernel) Loop(path string, _ bool) (dmsnap.Loop, error) {
	if err := k.call("loop"); err != nil {
		return nil, err
	}
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	l := k.loops[path]
	if l == nil {
		k.numbers++
		l = &loop{k: k, path: path, number: fmt.Sprintf("7:%d", k.numbers)}
		k.loops[path] = l
	}
	l.opens++
	return l, nil
}

func (l *loop) Number() (string, error) { return l.number, nil }

func (l *loop) Close() error {
	l.opens--
	l.k.sweep()
	return nil
}

// sweep clears the loop devices that nobody uses.
func (k *kernel) sweep() {
	for path, l := range k.loops {
		used := l.opens > 0
		for _, d := range k.devices {
			for _, t := range append(d.loaded, d.active...) {
				used = used || strings.Contains(" "+t.Text+" ", " "+l.number+" ")
			}
		}
		if !used {
			delete(k.loops, path)
		}
	}
}

func (k *kernel) Create(name string) error {
	if err := k.call("create"); err != nil {
		return err
	}
	if k.devices[name] != nil {
		return errkind.New(api.KindBusy, "it exists")
	}
	k.numbers++
	k.devices[name] = &device{node: fmt.Sprintf("/dev/dm-%d", k.numbers)}
	return nil
}

func (k *kernel) device(call, name string) (*device, error) {
	if err := k.call(call); err != nil {
		return nil, err
	}
	if d := k.devices[name]; d != nil {
		return d, nil
	}
	return nil, errkind.New(api.KindNotFound, "no such device")
}

func (k *kernel) Load(name string, table []dm.Target) error {
	d, err := k.device("load", name)
	if err == nil {
		d.loaded = table
	}
	return err
}

func (k *kernel) Resume(name string) (string, error) {
	d, err := k.device("resume", name)
	if err != nil {
		return "", err
	}
	d.active, d.loaded = d.loaded, nil
	return d.node, nil
}

func (k *kernel) Table(name string) (string, []dm.Target, error) {
	d, err := k.device("table", name)
	if err != nil {
		return "", nil, err
	}
	return d.node, d.active, nil
}

func (k *kernel) Status(name string) ([]dm.Target, error) {
	d, err := k.device("status", name)
	if err != nil {
		return nil, err
	}
	var status []dm.Target
	for _, t := range d.active {
		text := "16/32768 16"
		if k.invalid[k.backing(t, 1)] {
			text = "Invalid"
		}
		t.Text = text
		status = append(status, t)
	}
	return status, nil
}

func (k *kernel) Remove(name string) error {
	d, err := k.device("remove", name)
	if err != nil {
		return err
	}
	if d.users > 0 {
		d.users--
		return errkind.New(api.KindBusy, "device is in use")
	}
	delete(k.devices, name)
	k.sweep()
	return nil
}

// backing returns the path of the file that a target's n-th parameter names by its loop device.
func (k *kernel) backing(t dm.Target, n int) string {
	if f := strings.Fields(t.Text); n < len(f) {
		for path, l := range k.loops {
			if l.number == f[n] {
				return path
			}
		}
	}
	return ""
}

// Read implements disktest.Disk, as Write does.
func (k *kernel) Read(_ context.Context, a disk.Attachment) ([]byte, error) {
	var content []byte
	err := k.each(a, func(t dm.Target, file []byte) error {
		content = append(content, file[:t.Length*disk.SectorSize]...)
		return nil
	})
	return content, err
}

func (k *kernel) Write(_ context.Context, a disk.Attachment, off int64, data []byte) error {
	return k.each(a, func(t dm.Target, file []byte) error {
		if from := off - int64(t.Start)*disk.SectorSize; from >= 0 && from < int64(len(file)) {
			copy(file[from:], data)
		}
		return nil
	})
}

// each calls fn with each target and what is in its file. A tail is kept like a store, and grows with its file.
func (k *kernel) each(a disk.Attachment, fn func(t dm.Target, file []byte) error) error {
	for _, d := range k.devices {
		if d.node != a.Path || a.Format != "raw" {
			continue
		}
		for _, t := range d.active {
			path := k.backing(t, 0)
			key := path
			if t.Type == "snapshot" {
				key = k.backing(t, 1)
			}
			if path == "" || key == "" {
				return errors.New("a loop device is gone")
			}
			if _, ok := k.stores[key]; !ok {
				b, err := os.ReadFile(path)
				if err != nil {
					return err
				}
				k.stores[key] = b
			}
			if grown := int(t.Length*disk.SectorSize) - len(k.stores[key]); grown > 0 {
				k.stores[key] = append(k.stores[key], make([]byte, grown)...)
			}
			if err := fn(t, k.stores[key]); err != nil {
				return err
			}
		}
		return nil
	}
	return unix.ENXIO
}
