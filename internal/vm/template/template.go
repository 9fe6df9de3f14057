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
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/host"
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
	Key     Key              `json:"key"`
	Disks   [2]string        `json:"disks"` // names of the files of the root and the work disk
	State   string           `json:"state"`
	Files   map[string]stamp `json:"files"`
	Created time.Time        `json:"created"`
}

// stamp tells a file that was written to. Memory and disk are too large to be read at every start.
type stamp struct {
	Size    int64     `json:"size"`
	ModTime time.Time `json:"mod_time"`
}

func stampOf(path string) (stamp, error) {
	st, err := os.Stat(path)
	if err != nil {
		return stamp{}, err
	}
	return stamp{st.Size(), st.ModTime().UTC()}, nil
}

// describe notes what the finished files in dir are.
func describe(dir string, key Key) (manifest, error) {
	m := manifest{Key: key, Files: map[string]stamp{}, Created: time.Now().UTC()}
	for i, disk := range []string{"root", "work"} {
		found, err := filepath.Glob(filepath.Join(dir, disk+".*"))
		if err != nil || len(found) != 1 {
			return m, errkind.New(api.KindInternal, "files of the %s disk of a template: %q, %v", disk, found, err)
		}
		m.Disks[i] = filepath.Base(found[0])
	}
	for _, name := range append(m.Disks[:], memoryFile) {
		var err error
		if m.Files[name], err = stampOf(filepath.Join(dir, name)); err != nil {
			return m, err
		}
	}
	b, err := os.ReadFile(filepath.Join(dir, stateFile))
	m.State = digest(b)
	return m, err
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
	for name, want := range m.Files {
		if now, err := stampOf(filepath.Join(dir, name)); err != nil || now != want {
			return m, errkind.New(api.KindDataLoss, "the template is damaged: its file %s was changed", name)
		}
	}
	f, err := os.Open(filepath.Join(dir, stateFile))
	if err != nil {
		return m, errkind.New(api.KindDataLoss, "the template is damaged: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil || hex.EncodeToString(h.Sum(nil)) != m.State {
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

func errMaking(key Key, err error) error {
	return fmt.Errorf("make a template of image %q: %w", key.Image, err)
}
