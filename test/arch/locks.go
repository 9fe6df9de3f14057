package arch

import (
	"go/ast"
	"go/token"
)

// Locks returns the mutexes that structs of the shipped packages have, as docs/LOCKING.md names them:
// "`internal/vm` `Service.mu`".
func Locks(packages []Package) ([]string, error) {
	var out []string
	for _, p := range packages {
		if testSupport(p.Path) {
			continue
		}
		files, err := p.parse(token.NewFileSet())
		if err != nil {
			return nil, err
		}
		for _, f := range files {
			ast.Inspect(f, func(n ast.Node) bool {
				t, ok := n.(*ast.TypeSpec)
				if !ok {
					return true
				}
				for _, field := range mutexes(t.Type) {
					out = append(out, "`"+p.Path+"` `"+t.Name.Name+"."+field+"`")
				}
				return false
			})
		}
	}
	return out, nil
}

// mutexes returns the names of the fields of a struct type that are mutexes.
func mutexes(typ ast.Expr) []string {
	st, ok := typ.(*ast.StructType)
	if !ok {
		return nil
	}
	var out []string
	for _, f := range st.Fields.List {
		sel, ok := f.Type.(*ast.SelectorExpr)
		if !ok {
			continue
		}
		pkg, ok := sel.X.(*ast.Ident)
		if !ok || pkg.Name != "sync" || sel.Sel.Name != "Mutex" && sel.Sel.Name != "RWMutex" {
			continue
		}
		for _, name := range f.Names {
			out = append(out, name.Name)
		}
	}
	return out
}
