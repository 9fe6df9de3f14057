// Package kmod reads a kernel's module tree, the directory lib/modules/RELEASE: which modules there are, what each needs, and in
// which order some of them are to be loaded.
//
// It asks the modules themselves (section .modinfo), not modules.dep: a package's tree has none until depmod(8) ran, and
// soft dependencies are not in it. Module names have underscores here, whatever their files are called.
package kmod

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/klauspost/compress/zstd"
	xz "github.com/xi2/xz"
	"golang.org/x/sync/errgroup"
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
		deps, soft, err := needs(path)
		if err != nil {
			return fmt.Errorf("module %s: %w", path, err)
		}
		for _, s := range soft {
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
// interface, such as crc32c: the implementation that works on every processor is called NAME_generic.
func (t *Tree) softModule(name string) (string, bool) {
	for _, n := range []string{name, name + "_generic"} {
		if _, ok := t.files[n]; ok {
			return n, true
		}
	}
	return "", false
}

// needs reads a module's dependencies, hard and soft, from its .modinfo section: NUL-terminated KEY=VALUE strings
// (MODULE_INFO of the kernel's linux/module.h).
func needs(path string) (depends, soft []string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	var b bytes.Buffer
	if err := uncompress(&b, f); err != nil {
		return nil, nil, err
	}
	module, err := elf.NewFile(bytes.NewReader(b.Bytes()))
	if err != nil {
		return nil, nil, errkind.Wrap(api.KindInvalid, err)
	}
	section := module.Section(".modinfo")
	if section == nil {
		return nil, nil, errkind.New(api.KindInvalid, "no .modinfo section")
	}
	info, err := section.Data()
	if err != nil {
		return nil, nil, errkind.Wrap(api.KindInvalid, err)
	}
	for field := range strings.SplitSeq(string(info), "\x00") {
		key, value, _ := strings.Cut(field, "=")
		switch key {
		case "depends":
			depends = append(depends, split(value, ",")...)
		case "softdep": // "pre: A B post: C"
			value, _, _ = strings.Cut(value, "post:")
			soft = append(soft, split(strings.TrimPrefix(strings.TrimSpace(value), "pre:"), " ")...)
		}
	}
	return depends, soft, nil
}

func split(s, sep string) (names []string) {
	for n := range strings.SplitSeq(s, sep) {
		if n = strings.TrimSpace(n); n != "" {
			names = append(names, strings.ReplaceAll(n, "-", "_"))
		}
	}
	return names
}

// uncompress copies the module's file f to w, uncompressed. Its suffix says how it is compressed.
func uncompress(w io.Writer, f *os.File) error {
	var r io.Reader = f
	var err error
	switch filepath.Ext(f.Name()) {
	case ".gz":
		r, err = gzip.NewReader(f)
	case ".xz":
		r, err = xz.NewReader(f, 0)
	case ".zst":
		var d *zstd.Decoder
		if d, err = zstd.NewReader(f, zstd.WithDecoderConcurrency(1)); err == nil {
			defer d.Close()
			r = d
		}
	}
	if err == nil {
		_, err = io.Copy(w, r)
	}
	if err != nil {
		return fmt.Errorf("uncompress %s: %w", f.Name(), err)
	}
	return nil
}

// Uncompress replaces every compressed module of the tree by its uncompressed file, n at a time: a guest would pay for it
// at each load, and not every modprobe can. done is called after each.
func (t *Tree) Uncompress(ctx context.Context, n int, done func()) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(n)
	fresh := make(map[string]string, len(t.files))
	for name, path := range t.files {
		plain := strings.TrimSuffix(path, filepath.Ext(path))
		if strings.HasSuffix(path, ".ko") {
			plain = path
		}
		fresh[name] = plain
		if plain == path {
			continue
		}
		group.Go(func() error {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			defer done()
			return uncompressFile(plain, path)
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	t.files = fresh
	return nil
}

func uncompressFile(plain, path string) error {
	src, err := os.Open(path)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(plain, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	if err := errors.Join(uncompress(dst, src), dst.Close()); err != nil {
		return err
	}
	return os.Remove(path)
}
