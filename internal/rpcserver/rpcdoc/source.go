package main

import (
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
)

// source is what the comments in Go packages say, by package and type: "api.VMCreate".
type source map[string]typeDoc

// typeDoc is what is said of one type. Texts are one line without Go's links.
type typeDoc struct {
	doc    string
	fields map[string]string // by Go name
	values []value           // its constants, in order
}

// value is one constant of a type, as it is written in the source.
type value struct{ name, literal, doc string }

// readSource reads the comments of packages, named by their directories below root.
func readSource(root string, packages ...string) (source, error) {
	src := source{}
	for _, dir := range packages {
		fset := token.NewFileSet()
		paths, err := filepath.Glob(filepath.Join(root, dir, "*.go"))
		if err != nil {
			return nil, err
		}
		var files []*ast.File
		for _, path := range paths {
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(fset, path, nil, parser.ParseComments)
			if err != nil {
				return nil, err
			}
			files = append(files, f)
		}
		if len(files) == 0 {
			return nil, &fs.PathError{Op: "read source", Path: filepath.Join(root, dir), Err: fs.ErrNotExist}
		}
		pkg, err := doc.NewFromFiles(fset, files, dir)
		if err != nil {
			return nil, err
		}
		for _, t := range pkg.Types {
			src[path.Base(dir)+"."+t.Name] = readType(t)
		}
	}
	return src, nil
}

// key is a type's name in a source.
func key(t reflect.Type) string { return path.Base(t.PkgPath()) + "." + t.Name() }

func readType(t *doc.Type) typeDoc {
	d := typeDoc{doc: oneLine(t.Doc), fields: map[string]string{}}
	for _, spec := range t.Decl.Specs {
		st, ok := spec.(*ast.TypeSpec).Type.(*ast.StructType)
		if !ok {
			continue
		}
		for _, f := range st.Fields.List {
			for _, name := range f.Names {
				d.fields[name.Name] = comment(f.Doc, f.Comment)
			}
		}
	}
	for _, group := range t.Consts {
		for _, spec := range group.Decl.Specs {
			s := spec.(*ast.ValueSpec)
			for i, name := range s.Names {
				if i < len(s.Values) {
					lit, _ := s.Values[i].(*ast.BasicLit)
					d.values = append(d.values, value{name.Name, strings.Trim(lit.Value, `"`), comment(s.Doc, s.Comment)})
				}
			}
		}
	}
	return d
}

func comment(above, beside *ast.CommentGroup) string {
	if above != nil {
		return oneLine(above.Text())
	}
	return oneLine(beside.Text())
}

var docLink = regexp.MustCompile(`\[\*?([A-Z][\w.]*)\]`)

// oneLine joins lines and takes the brackets off links to Go names.
func oneLine(s string) string {
	return docLink.ReplaceAllString(strings.Join(strings.Fields(s), " "), "$1")
}
