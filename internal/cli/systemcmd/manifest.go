package systemcmd

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/config"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/host"
	"golang.org/x/sys/unix"
)

// manifest is what was installed. It is stored before anything of it is written, so that after a crash nothing is there that it
// does not name. It stays when the programs go, for as long as the state does.
type manifest struct {
	Version string `json:"version,omitempty"` // of the programs
	// Files is path to digests (SHA-256). A file with one of them is ours, any other is the user's. There are two while a
	// file is replaced.
	Files map[string][]string `json:"files"`
	Dirs  []string            `json:"dirs,omitempty"`  // directories that were made, parents first
	Group bool                `json:"group,omitempty"` // the group was made
}

// target is the file system that is installed to: root is empty for the host's.
type target struct{ root string }

func (t target) path(p string) string { return filepath.Join(t.root, p) }

func (t target) manifestPath() string { return t.path(config.SystemPaths().Manifest()) }

// read returns the manifest, which is empty where nothing was installed.
func (t target) read() (*manifest, error) {
	m := &manifest{Files: map[string][]string{}}
	b, err := os.ReadFile(t.manifestPath())
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err == nil {
		err = json.Unmarshal(b, m)
	}
	if err != nil {
		return nil, fmt.Errorf("read what is installed: %w", err)
	}
	return m, nil
}

func (t target) write(m *manifest) error {
	b, err := json.MarshalIndent(m, "", "\t")
	if err != nil {
		return err
	}
	if err := host.PrivateDir(filepath.Dir(t.manifestPath())); err != nil {
		return err
	}
	return host.WriteFile(t.manifestPath(), append(b, '\n'), 0o600)
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// onDisk returns the digest of the file at path, and the empty string when there is none.
func (t target) onDisk(path string) (string, error) {
	b, err := t.content(path)
	if err != nil || b == nil {
		return "", err
	}
	return digest(b), nil
}

// content returns what is in the file at path, and nil when there is none.
func (t target) content(path string) ([]byte, error) {
	b, err := os.ReadFile(t.path(path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

// change is what an installation does to one path.
type change struct {
	verb string // write, replace or remove
	file File   // without data when it is removed
}

// plan compares files with the disk. Files that are as they should be are no change; those of an earlier installation that
// this one does not have are removed. A file that is there and not ours is of kind exists, unless force is given.
func (t target) plan(m *manifest, files []File, force bool) ([]change, error) {
	var out []change
	var foreign []string
	wanted := map[string]bool{}
	for _, f := range files {
		wanted[f.Path] = true
		now, err := t.content(f.Path)
		switch {
		case err != nil:
			return nil, err
		case now == nil:
			out = append(out, change{verb: "write", file: f})
		case bytes.Equal(now, f.Data):
		case force || slices.Contains(m.Files[f.Path], digest(now)):
			out = append(out, change{verb: "replace", file: f})
		default:
			foreign = append(foreign, t.path(f.Path))
		}
	}
	if len(foreign) > 0 {
		return nil, errkind.WithHint(errkind.New(api.KindExists, "not written by an earlier `banger system install`, or changed since: %q", foreign),
			"look at them, then replace them with --force; changes of the unit belong in a drop-in: `systemctl edit bangerd`")
	}
	for _, path := range slices.Sorted(maps.Keys(m.Files)) {
		now, err := t.onDisk(path)
		if err != nil {
			return nil, err
		}
		if !wanted[path] && slices.Contains(m.Files[path], now) {
			out = append(out, change{verb: "remove", file: File{Path: path}})
		}
	}
	return out, nil
}

// apply makes the changes. After an error the manifest names everything that was written.
func (t target) apply(m *manifest, version string, changes []change) error {
	m.Version = version
	later := maps.Clone(m.Files)
	for _, c := range changes {
		if c.verb == "remove" {
			delete(later, c.file.Path)
			continue
		}
		now := digest(c.file.Data)
		later[c.file.Path] = []string{now}
		m.Files[c.file.Path] = append(m.Files[c.file.Path], now)
		m.Dirs = append(m.Dirs, t.missing(filepath.Dir(c.file.Path), m.Dirs)...)
	}
	if err := t.write(m); err != nil {
		return err
	}
	for _, dir := range m.Dirs {
		if err := t.makeDir(dir); err != nil {
			return err
		}
	}
	if err := t.put(changes); err != nil {
		return err
	}
	m.Files = later
	return t.write(m)
}

// put writes, replaces and removes files. Each is whole or as it was: all are written beside their places, made durable at once,
// which takes a fraction of the time of one by one, and then moved.
func (t target) put(changes []change) (err error) {
	staged := make([]string, len(changes))
	defer func() {
		for _, path := range staged {
			if err != nil && path != "" {
				_ = os.Remove(path) // it may have been moved
			}
		}
	}()
	for i, c := range changes {
		if c.verb == "remove" {
			continue
		}
		if staged[i], err = stage(t.path(c.file.Path), c.file); err != nil {
			return fmt.Errorf("write %s: %w", t.path(c.file.Path), err)
		}
	}
	unix.Sync()
	for i, c := range changes {
		path := t.path(c.file.Path)
		if c.verb == "remove" {
			err = os.Remove(path)
		} else {
			err = os.Rename(staged[i], path)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// stage writes f beside path and returns where.
func stage(path string, f File) (string, error) {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return "", err
	}
	_, err = tmp.Write(f.Data)
	return tmp.Name(), errors.Join(err, tmp.Chmod(f.Mode), tmp.Close())
}

// missing returns the directories up to dir that are neither there nor known, parents first.
func (t target) missing(dir string, known []string) []string {
	if _, err := os.Lstat(t.path(dir)); err == nil || dir == "/" || slices.Contains(known, dir) {
		return nil
	}
	return append(t.missing(filepath.Dir(dir), known), dir)
}

// makeDir makes a directory that everybody may read, whatever the caller's umask. One that exists stays as it is.
func (t target) makeDir(dir string) error {
	err := os.Mkdir(t.path(dir), 0o755)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return errors.Join(err, os.Chmod(t.path(dir), 0o755))
}

// changed returns the files that are not as they were installed.
func (t target) changed(m *manifest) ([]string, error) {
	var out []string
	for _, path := range slices.Sorted(maps.Keys(m.Files)) {
		now, err := t.onDisk(path)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(m.Files[path], now) {
			out = append(out, t.path(path))
		}
	}
	return out, nil
}

// remove removes the files that are ours and the directories that were made and are empty now, and returns the files that it
// kept because somebody has changed them.
func (t target) remove(m *manifest) (kept []string, err error) {
	for _, path := range slices.Sorted(maps.Keys(m.Files)) {
		now, err := t.onDisk(path)
		if err != nil {
			return kept, err
		}
		if now != "" && !slices.Contains(m.Files[path], now) {
			kept = append(kept, t.path(path))
			continue
		}
		if err := os.Remove(t.path(path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return kept, err
		}
	}
	for _, dir := range slices.Backward(m.Dirs) {
		_ = os.Remove(t.path(dir)) // fails while others have files there
	}
	m.Version, m.Files, m.Dirs = "", map[string][]string{}, nil
	if m.Group {
		return kept, t.write(m)
	}
	if err := os.Remove(t.manifestPath()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return kept, err
	}
	return kept, nil
}
