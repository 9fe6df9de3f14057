package rpcserver

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

// parseDir returns the files of a package, tests excluded.
func parseDir(t *testing.T, dir string) []*ast.File {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	var files []*ast.File
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	return files
}

// methodNames returns the constants Method… of package api: wire name by Go name.
func methodNames(t *testing.T) map[string]string {
	t.Helper()
	names := map[string]string{}
	for _, f := range parseDir(t, "../../api") {
		ast.Inspect(f, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok || !strings.HasPrefix(spec.Names[0].Name, "Method") {
				return true
			}
			name, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			names[spec.Names[0].Name] = name
			return false
		})
	}
	if len(names) < 40 {
		t.Fatalf("only %d methods in package api", len(names))
	}
	return names
}

func TestEveryMethodOfTheContractHasOneRow(t *testing.T) {
	var contract, table []string
	for _, name := range methodNames(t) {
		contract = append(contract, name)
	}
	for _, m := range Methods(Services{}) {
		table = append(table, m.Name)
	}
	slices.Sort(contract)
	slices.Sort(table)
	if d := cmp.Diff(contract, table); d != "" {
		t.Errorf("package api has -, the table has +:\n%s", d)
	}
}

func TestEveryRowHasAMethodOfTheClient(t *testing.T) {
	called := map[string]bool{} // Go names of constants that exported methods of Client use
	for _, f := range parseDir(t, "../../client") {
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Recv == nil || !fn.Name.IsExported() {
				continue
			}
			ast.Inspect(fn.Body, func(n ast.Node) bool {
				if sel, ok := n.(*ast.SelectorExpr); ok {
					called[sel.Sel.Name] = true
				}
				return true
			})
		}
	}
	for constant, name := range methodNames(t) {
		if !called[constant] {
			t.Errorf("no method of client.Client calls %s", name)
		}
	}
}

func TestParametersTravelWhole(t *testing.T) {
	for _, m := range Methods(Services{}) {
		want := reflect.New(m.Params)
		fill(t, want.Elem())
		raw, err := json.Marshal(want.Interface())
		if err != nil {
			t.Fatal(err)
		}
		got := reflect.New(m.Params)
		if err := decode(m.Name, raw, got.Interface()); err != nil {
			t.Errorf("%s: %v", m.Name, err)
		}
		if d := cmp.Diff(want.Interface(), got.Interface()); d != "" {
			t.Errorf("%s: %s", m.Name, d)
		}
	}
}

// fill makes every field of v differ from its zero value.
func fill(t *testing.T, v reflect.Value) {
	t.Helper()
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(t, v.Index(0))
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)))
			return
		}
		for i := range v.NumField() {
			fill(t, v.Field(i))
		}
	case reflect.Uint8:
		v.SetUint(1)
	case reflect.String:
		v.SetString("x")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(7)
	case reflect.Uint16:
		v.SetUint(7)
	default:
		t.Fatalf("parameters have a %s", v.Type())
	}
}

// The services are all nil: a row that took such a request would panic.
func TestUnknownParametersAreRefusedByEveryRow(t *testing.T) {
	raw := json.RawMessage(`{"no_such_parameter":1}`)
	for _, m := range Methods(Services{}) {
		var err error
		if m.stream != nil {
			err = m.stream(t.Context(), raw, nil)
		} else {
			_, err = m.call(t.Context(), raw)
		}
		if !errkind.Is(err, api.KindInvalid) || !strings.Contains(err.Error(), m.Name) || !strings.Contains(err.Error(), "no_such_parameter") {
			t.Errorf("%s: got %v", m.Name, err)
		}
	}
}

func TestRowsAreComplete(t *testing.T) {
	for _, m := range Methods(Services{}) {
		if m.Class < Read || m.Class > Admin || m.Doc == "" || m.Params == nil || m.Result == nil {
			t.Errorf("%s: incomplete row %+v", m.Name, m)
		}
		if (m.Payload == NoStream) != (m.stream == nil) || (m.stream == nil) == (m.call == nil) {
			t.Errorf("%s: payload %q does not go with its kind of handler", m.Name, m.Payload)
		}
		if (m.Payload == Lines) != (m.Line != nil) {
			t.Errorf("%s: payload %q, lines of %v", m.Name, m.Payload, m.Line)
		}
	}
}
