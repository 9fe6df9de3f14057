// Package arch checks what a compiler does not: that imports go one way, that os/exec and test code stay in their places, and
// that files, functions and interfaces keep to the sizes that the project has set itself. The tables are in imports.go and
// shape.go; the findings name the package, the rule and the place.
//
// The rules bind the code that is shipped. Tests and packages of test support, whose names end in "test" or begin with
// "fake", may import what they like, and nothing that is shipped may import them.
package arch

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// module is the path of the module that the rules are for.
const module = "github.com/banger-vm/banger"

// Package is one package of the module. Paths of the module's own packages are relative to it: internal/vm.
type Package struct {
	Path    string
	Dir     string
	Doc     string   // the first sentence of its comment
	Files   []string // names of its Go files for this platform, tests excluded
	Imports []string
	Deps    []string // everything it imports, directly or not
}

// Finding is one violation.
type Finding struct {
	Package string
	Rule    string
	Detail  string
}

func (f Finding) String() string { return fmt.Sprintf("%s: %s: %s", f.Package, f.Rule, f.Detail) }

// Load returns the packages of the module in dir. Packages that do not compile are loaded as far as they go.
func Load(dir string) ([]Package, error) {
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Dir,Doc,GoFiles,CgoFiles,Imports,Deps", "./...")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=", "CGO_ENABLED=1") // to see cgo files
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w: %s", err, &stderr)
	}
	var packages []Package
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct {
			ImportPath, Dir, Doc             string
			GoFiles, CgoFiles, Imports, Deps []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return packages, nil
		} else if err != nil {
			return nil, fmt.Errorf("go list: %w", err)
		}
		files := slices.Concat(p.GoFiles, p.CgoFiles)
		if len(files) == 0 {
			continue // tests only
		}
		packages = append(packages, Package{Path: short(p.ImportPath), Dir: p.Dir, Doc: p.Doc, Files: files,
			Imports: shortAll(p.Imports), Deps: shortAll(p.Deps)})
	}
}

// short makes the paths of the module's own packages relative to it.
func short(importPath string) string {
	if importPath == module {
		return "."
	}
	return strings.TrimPrefix(importPath, module+"/")
}

func shortAll(importPaths []string) []string {
	out := make([]string, len(importPaths))
	for i, p := range importPaths {
		out[i] = short(p)
	}
	return out
}

// parse returns p's files by name.
func (p Package) parse(fset *token.FileSet) (map[string]*ast.File, error) {
	files := map[string]*ast.File{}
	for _, name := range p.Files {
		f, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		files[name] = f
	}
	return files, nil
}

// testSupport reports whether a package path is of test code.
func testSupport(pkg string) bool {
	name := path.Base(pkg)
	return strings.HasPrefix(pkg, "test/") || strings.HasSuffix(name, "test") || strings.HasPrefix(name, "fake")
}

// match reports whether pkg is named by one of the patterns: a path, or a path followed by /... for all below it too.
func match(patterns []string, pkg string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		tree, all := strings.CutSuffix(pattern, "/...")
		return pkg == tree || all && strings.HasPrefix(pkg, tree+"/")
	})
}
