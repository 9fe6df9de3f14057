// Package kmod reads a kernel's module tree, the directory lib/modules/RELEASE: which modules there are, what each needs, and in
// which order some of them are to be loaded.
//
// It asks the modules themselves (section .modinfo), not modules.dep: a package's tree has none until depmod(8) ran, and
// soft dependencies are not in it. Module names have underscores here, whatever their files are called.
package kmod

import (
	"bufio"
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

// Tree is a module tree.
type Tree struct {
	Dir     string
	files   map[string]string // module name → path
	builtin map[string]bool   // modules that are part of the kernel (modules.builtin)
}

// Open reads the tree's directory. A directory without modules.builtin is no module tree: an error of kind invalid.
func Open(dir string) (*Tree, error) {
	t := &Tree{Dir: dir, files: map[string]string{}, builtin: map[string]bool{}}
	builtin, err := os.Open(filepath.Join(dir, "modules.builtin"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errkind.New(api.KindInvalid, "%s is no module tree: it has no modules.builtin", dir)
	}
	if err != nil {
		return nil, err
	}
	defer builtin.Close()
	lines := bufio.NewScanner(builtin)
	for lines.Scan() {
		t.builtin[nameOf(lines.Text())] = true
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && isModule(path) {
			t.files[nameOf(path)] = path
		}
		return err
	})
	return t, err
}

// Len is how many modules the tree has files of.
func (t *Tree) Len() int { return len(t.files) }

// suffixes are how modules' files end: CONFIG_MODULE_COMPRESS.
var suffixes = [...]string{".ko", ".ko.gz", ".ko.xz", ".ko.zst"}

func isModule(path string) bool {
	for _, s := range suffixes {
		if strings.HasSuffix(path, s) {
			return true
		}
	}
	return false
}

func nameOf(path string) string {
	name, _, _ := strings.Cut(filepath.Base(path), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

// Release is the release of the kernel that the tree's modules were built for, as one of them says; the tree's own name where
// it has none.
func (t *Tree) Release() (string, error) {
	for _, path := range t.files {
		m, err := read(path)
		return m.release, err
	}
	return filepath.Base(t.Dir), nil
}

// Resolve returns the paths of the modules that names need, in load order, each once, and the names of which there is no module. What
// is part of the kernel needs no file and is left out.
func (t *Tree) Resolve(names []string) (paths, missing []string, err error) {
	seen := map[string]bool{}
	var visit func(name string) error
	visit = func(name string) error {
		if seen[name] || t.builtin[name] {
			return nil
		}
		seen[name] = true
		path, ok := t.files[name]
		if !ok {
			missing = append(missing, name)
			return nil
		}
		m, err := read(path)
		if err != nil {
			return err
		}
		deps := m.depends
		for _, s := range m.soft {
			if s, ok := t.softModule(s); ok {
				deps = append(deps, s)
			}
		}
		for _, d := range deps {
			if err := visit(d); err != nil {
				return err
			}
		}
		paths = append(paths, path)
		return nil
	}
	for _, name := range names {
		if err := visit(strings.ReplaceAll(name, "-", "_")); err != nil {
			return nil, nil, err
		}
	}
	return paths, missing, nil
}

// softModule turns a soft dependency into a module, if there is one. It may also name an algorithm of the kernel's crypto
// interface, as crc32c or crypto-crc32c: the implementation that works on every processor is called NAME_generic.
func (t *Tree) softModule(name string) (string, bool) {
	for _, n := range []string{name, strings.TrimPrefix(name, "crypto_") + "_generic"} {
		if _, ok := t.files[n]; ok {
			return n, true
		}
	}
	return "", false
}

// info is what a module's .modinfo section says.
type info struct {
	depends []string // modules it needs
	soft    []string // modules or algorithms that it wants to be loaded before
	release string   // of the kernel it was built for
}

// read reads the module at path: NUL-terminated KEY=VALUE strings in section .modinfo (MODULE_INFO of the kernel's
// linux/module.h).
func read(path string) (info, error) {
	m, err := parse(path)
	if err != nil {
		return m, fmt.Errorf("module %s: %w", path, err)
	}
	return m, nil
}

func parse(path string) (m info, err error) {
	f, err := os.Open(path)
	if err != nil {
		return m, err
	}
	defer f.Close()
	var b bytes.Buffer
	if err := uncompress(&b, f); err != nil {
		return m, err
	}
	module, err := elf.NewFile(bytes.NewReader(b.Bytes()))
	if err != nil {
		return m, errkind.Wrap(api.KindInvalid, err)
	}
	section := module.Section(".modinfo")
	if section == nil {
		return m, errkind.New(api.KindInvalid, "no .modinfo section")
	}
	text, err := section.Data()
	if err != nil {
		return m, errkind.Wrap(api.KindInvalid, err)
	}
	for field := range strings.SplitSeq(string(text), "\x00") {
		key, value, _ := strings.Cut(field, "=")
		switch key {
		case "depends":
			m.depends = append(m.depends, split(value, ",")...)
		case "softdep": // "pre: A B post: C"
			value, _, _ = strings.Cut(value, "post:")
			m.soft = append(m.soft, split(strings.TrimPrefix(strings.TrimSpace(value), "pre:"), " ")...)
		case "vermagic": // "RELEASE SMP preempt mod_unload"
			m.release, _, _ = strings.Cut(value, " ")
		}
	}
	return m, nil
}

func split(s, sep string) (names []string) {
	for n := range strings.SplitSeq(s, sep) {
		if n = strings.TrimSpace(n); n != "" {
			names = append(names, strings.ReplaceAll(n, "-", "_"))
		}
	}
	return names
}
