// Package install tests `make install` and `make uninstall`.
package install

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// makeTarget runs a target with directories of its own for everything that it writes.
func makeTarget(t *testing.T, dir, target string) string {
	t.Helper()
	cmd := exec.Command("make", "-C", "../..", target, "BIN="+filepath.Join(dir, "bin"), "DIST="+filepath.Join(dir, "dist"),
		"DESTDIR="+filepath.Join(dir, "root dir"), "PREFIX=/opt")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("make %s: %v\n%s", target, err, out)
	}
	return string(out)
}

// tree returns the files below dir with their modes: "bin/banger -rwxr-xr-x".
func tree(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		out = append(out, name+" "+info.Mode().String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestInstallAndUninstall(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds all programs")
	}
	if _, err := exec.LookPath("make"); err != nil {
		t.Skip("make is not installed")
	}
	dir := t.TempDir()
	prefix := filepath.Join(dir, "root dir", "opt")
	strangers := []string{"bin/bang", "share/man/man1/banger-of-another.1"}
	for _, name := range strangers {
		path := filepath.Join(prefix, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	before := tree(t, prefix)

	makeTarget(t, dir, "install")
	installed := slices.DeleteFunc(tree(t, prefix), func(f string) bool { return slices.Contains(before, f) })
	var pages, others []string
	for _, f := range installed {
		if name, ok := strings.CutPrefix(f, "share/man/man1/"); ok {
			pages = append(pages, name)
		} else {
			others = append(others, f)
		}
	}
	want := []string{
		"bin/banger -rwxr-xr-x", "bin/banger-agent -rwxr-xr-x", "bin/bangerd -rwxr-xr-x",
		"share/bash-completion/completions/banger -rw-r--r--", "share/fish/vendor_completions.d/banger.fish -rw-r--r--",
		"share/zsh/site-functions/_banger -rw-r--r--",
	}
	if d := cmp.Diff(want, others); d != "" {
		t.Errorf("installed besides pages (-want):\n%s", d)
	}
	for _, page := range []string{"banger.1 -rw-r--r--", "banger-vm-run.1 -rw-r--r--", "banger-kernel-import.1 -rw-r--r--"} {
		if !slices.Contains(pages, page) {
			t.Errorf("no page %q among %q", page, pages)
		}
	}
	for path, start := range map[string]string{
		"share/man/man1/banger.1": ".TH", "share/zsh/site-functions/_banger": "#compdef banger",
		"share/bash-completion/completions/banger": "# bash completion", "share/fish/vendor_completions.d/banger.fish": "# fish completion",
	} {
		data, err := os.ReadFile(filepath.Join(prefix, path))
		if err != nil || !strings.HasPrefix(string(data), start) {
			t.Errorf("%s: %v, begins with %.20q", path, err, data)
		}
	}
	if out, err := exec.Command(filepath.Join(prefix, "bin/banger"), "version").CombinedOutput(); err != nil {
		t.Errorf("banger version: %v\n%s", err, out)
	}

	makeTarget(t, dir, "uninstall")
	if d := cmp.Diff(before, tree(t, prefix)); d != "" {
		t.Errorf("left or lost by uninstall:\n%s", d)
	}
}
