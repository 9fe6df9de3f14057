package arch

import (
	"fmt"
	"go/ast"
	"go/token"
	"path"
	"slices"
	"strings"
)

// The limits. STYLE.md asks for less; these are where a change is refused.
const (
	maxFile       = 700  // lines
	maxFunction   = 100  // lines
	maxPackage    = 2000 // lines, tests excluded
	maxInterface  = 10   // methods
	maxParameters = 6
)

// CheckShape holds the packages against the limits and the rules about what a package may declare. Generated files are not
// measured.
func CheckShape(packages []Package) ([]Finding, error) {
	var out []Finding
	for _, p := range packages {
		fset := token.NewFileSet()
		files, err := p.parse(fset)
		if err != nil {
			return nil, err
		}
		c := &shape{pkg: p, fset: fset}
		if p.Doc == "" {
			c.report("every package has a comment", "%s has none", p.Path)
		}
		if slices.Contains([]string{"util", "utils", "common", "helper", "helpers", "misc", "types"}, path.Base(p.Path)) {
			c.report("a package is named for what it owns", "%s", path.Base(p.Path))
		}
		total := 0
		for name, f := range files {
			if ast.IsGenerated(f) {
				continue
			}
			lines := fset.File(f.FileStart).LineCount()
			total += lines
			c.limit("lines in a file", name, lines, maxFile)
			c.file(f)
		}
		c.limit("lines in a package", p.Path, total, maxPackage)
		out = append(out, c.findings...)
	}
	return out, nil
}

// shape collects the findings of one package.
type shape struct {
	pkg      Package
	fset     *token.FileSet
	findings []Finding
}

func (c *shape) report(rule, format string, args ...any) {
	c.findings = append(c.findings, Finding{c.pkg.Path, rule, fmt.Sprintf(format, args...)})
}

func (c *shape) limit(what, name string, n, most int) {
	if n > most {
		c.report(fmt.Sprintf("at most %d %s", most, what), "%s has %d", name, n)
	}
}

func (c *shape) file(f *ast.File) {
	for _, imp := range f.Imports {
		if imp.Path.Value == `"C"` {
			c.report("no cgo", "imports C")
		}
	}
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			c.function(d)
		case *ast.GenDecl:
			if d.Tok == token.VAR && f.Name.Name != "main" {
				c.variables(d)
			}
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.TypeSpec:
			if i, ok := n.Type.(*ast.InterfaceType); ok {
				c.limit("methods in an interface", n.Name.Name, i.Methods.NumFields(), maxInterface)
			}
		case *ast.FuncLit:
			c.limit("lines in a function", "a function literal", c.lines(n), maxFunction)
		}
		return true
	})
}

func (c *shape) function(d *ast.FuncDecl) {
	name := d.Name.Name
	if d.Recv == nil && name == "init" {
		c.report("no init functions", "init")
	}
	c.limit("lines in a function", name, c.lines(d), maxFunction)
	c.limit("parameters", name, d.Type.Params.NumFields(), maxParameters)
}

func (c *shape) lines(n ast.Node) int {
	return c.fset.Position(n.End()).Line - c.fset.Position(n.Pos()).Line + 1
}

// variables reports exported variables. A sentinel error is one by necessity, and is named Err.
func (c *shape) variables(d *ast.GenDecl) {
	for _, s := range d.Specs {
		for _, name := range s.(*ast.ValueSpec).Names {
			if name.IsExported() && !strings.HasPrefix(name.Name, "Err") {
				c.report("no exported variables", "%s", name.Name)
			}
		}
	}
}
