// Package template keeps templates: guests that were booted once, are nobody's, and were saved, so that VMs begin with one in place
// of a boot.
//
// A template is a directory of [Library], named for the digest of its [Key]: what must be the same for a VM to begin with it. It is
// made under another name, and is whole when it has its own; nothing in it changes from then on. VMs hold on to what they need of it
// by links and mappings of their own, so it can be removed at any time.
//
// One goroutine makes templates, one at a time, when the daemon has had nothing else to do for a moment. Its machine is no VM's: a
// daemon that starts ends what an earlier one was making.
package template

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/host"
	"github.com/banger-vm/banger/internal/preflight"
	"github.com/banger-vm/banger/internal/vm/capability"
	"github.com/banger-vm/banger/internal/vmm"
)

// Key is what a template and a VM that begins with it have in common.
type Key struct {
	ImageID  banger.ImageID  `json:"image_id"`
	Image    string          `json:"image"` // its name, for people
	KernelID banger.KernelID `json:"kernel_id"`
	Agent    string          `json:"agent"`  // digest of its file
	Engine   string          `json:"engine"` // VMM, its version, machine type and accelerator
	CPU      string          `json:"cpu"`    // the host's, as the guest's kernel has adapted itself to it
	VCPU     int             `json:"vcpu"`
	MemMiB   int             `json:"mem_mib"`
	Cloner   string          `json:"cloner"` // of its root disk, and of the clones of that
}

// id is the name of the template's directory.
func (k Key) id() string {
	b, err := json.Marshal(k)
	if err != nil {
		panic(err) // strings and numbers
	}
	return digest(b)[:12]
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// The files of a template, beside its memory and its disks, which package capabilities names.
const (
	stateFile    = "state"
	memoryFile   = "memory"
	manifestFile = "template.json"
)

// manifest is template.json: what the template is, and what its files are when nobody has touched them.
type manifest struct {
	Key     Key       `json:"key"`
	Disks   [2]string `json:"disks"` // names of the files of the root and the work disk
	State   string    `json:"state"` // digest of the state, which every start reads
	Files   []file    `json:"files"`
	Created time.Time `json:"created"`
}

// file is a file of a template, by its name. Memory and disks are too large to be read at every start: that they have the size and
// the time of then is looked at, and the digest is for doctor.
type file struct {
	banger.File
	ModTime time.Time `json:"mod_time"`
}

// changed reports whether somebody has written to the file in dir.
func (f file) changed(dir string) bool {
	st, err := os.Stat(filepath.Join(dir, f.Path))
	return err != nil || st.Size() != f.Size || !st.ModTime().Equal(f.ModTime)
}

// describe removes from dir what is not a template's, makes the rest durable, and notes what it is. A host that loses power later
// cannot leave a file that is right by its size only.
func describe(ctx context.Context, dir string, key Key) (manifest, error) {
	m := manifest{Key: key, Created: time.Now().UTC()}
	for i, disk := range []string{"root", "work"} {
		found, err := filepath.Glob(filepath.Join(dir, disk+".*"))
		if err != nil || len(found) != 1 {
			return m, errkind.New(api.KindInternal, "files of the %s disk of a template: %q, %v", disk, found, err)
		}
		m.Disks[i] = filepath.Base(found[0])
	}
	if err := keepOnly(dir, append(m.Disks[:], memoryFile, stateFile)); err != nil {
		return m, err
	}
	files, err := preflight.Record(ctx, dir, "")
	if err != nil {
		return m, err
	}
	for _, f := range files {
		st, err := os.Stat(filepath.Join(dir, f.Path))
		if err != nil {
			return m, err
		}
		m.Files = append(m.Files, file{f, st.ModTime().UTC()})
	}
	b, err := os.ReadFile(filepath.Join(dir, stateFile))
	m.State = digest(b)
	return m, err
}

// keepOnly removes every file in dir that is not named, and makes the others durable.
func keepOnly(dir string, names []string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		do := os.Remove
		if slices.Contains(names, e.Name()) {
			do = host.Sync
		}
		err = errors.Join(err, do(filepath.Join(dir, e.Name())))
	}
	return err
}

// open returns the template in dir, or what is wrong with it, of kind not-found or data-loss.
func open(dir string) (manifest, error) {
	var m manifest
	b, err := os.ReadFile(filepath.Join(dir, manifestFile))
	if errors.Is(err, os.ErrNotExist) {
		return m, errkind.New(api.KindNotFound, "there is no template yet")
	}
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return m, errkind.New(api.KindDataLoss, "the template is damaged: %s: %w", manifestFile, err)
	}
	for _, f := range m.Files {
		if f.changed(dir) {
			return m, errkind.New(api.KindDataLoss, "the template is damaged: its file %s was changed", f.Path)
		}
	}
	state, err := os.ReadFile(filepath.Join(dir, stateFile))
	if err != nil || digest(state) != m.State {
		return m, errkind.New(api.KindDataLoss, "the template is damaged: its file %s was changed", stateFile)
	}
	return m, nil
}

func (m manifest) template(dir string) *capability.Template {
	return &capability.Template{
		ID: m.Key.id(), Disks: [2]string{filepath.Join(dir, m.Disks[0]), filepath.Join(dir, m.Disks[1])},
		Saved: vmm.Saved{Memory: filepath.Join(dir, memoryFile), State: filepath.Join(dir, stateFile)},
	}
}

// shelved is a template as it is found on disk.
type shelved struct {
	dir string
	manifest
	wrong error // what is wrong with it; nil: nothing
	size  int64 // what it takes of the disk, in bytes
	used  time.Time
}

// look looks at what is in dir.
func look(dir string) shelved {
	s := shelved{dir: dir}
	s.manifest, s.wrong = open(dir)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return s // it was just removed
	}
	for _, e := range entries {
		if n, err := host.Allocated(filepath.Join(dir, e.Name())); err == nil {
			s.size += n
		}
	}
	if st, err := os.Stat(dir); err == nil {
		s.used = st.ModTime().UTC() // see Library.used
	}
	return s
}

// describe returns it as clients see it.
func (s shelved) describe() api.Template {
	t := api.Template{
		ID: filepath.Base(s.dir), Image: s.Key.Image, ImageID: string(s.Key.ImageID), KernelID: string(s.Key.KernelID), Engine: s.Key.Engine,
		VCPU: s.Key.VCPU, MemMiB: s.Key.MemMiB, Created: s.Created, Size: s.size, LastUsed: s.used,
	}
	if s.wrong != nil {
		t.Error = s.wrong.Error()
	}
	return t
}
