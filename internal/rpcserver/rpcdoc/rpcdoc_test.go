package main

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/banger-vm/banger/internal/rpcserver"
)

const root = "../../.."

func TestCommittedDocumentsAreFresh(t *testing.T) {
	files, err := render(root)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(got), string(want)); d != "" {
			t.Errorf("%s is stale; run `make docs`:\n%s", name, d)
		}
	}
}

func TestWriteNamesTheDirectoryThatHasNoSource(t *testing.T) {
	dir := t.TempDir()
	if err := write(dir); err == nil || !strings.Contains(err.Error(), filepath.Join(dir, "api")) {
		t.Errorf("got %v", err)
	}
}

func loadContract(t *testing.T) *contract {
	t.Helper()
	src, err := readSource(root, "api", "api/guestapi", "api/frame")
	if err != nil {
		t.Fatal(err)
	}
	return newContract(rpcserver.Methods(rpcserver.Services{}), src)
}

// The documents' members must be those that encoding/json writes.
func TestMembersAreThoseOnTheWire(t *testing.T) {
	c := loadContract(t)
	types := slices.Clone(c.types)
	for _, m := range c.methods {
		types = append(types, m.Params)
	}
	for _, typ := range types {
		v := reflect.New(typ).Elem()
		fill(v)
		data, err := json.Marshal(v.Interface())
		if err != nil {
			t.Fatal(err)
		}
		wire := map[string]json.RawMessage{}
		if err := json.Unmarshal(data, &wire); err != nil {
			t.Fatal(err)
		}
		documented := map[string]json.RawMessage{}
		for _, m := range c.members(typ) {
			documented[m.name] = wire[m.name]
		}
		if d := cmp.Diff(slices.Sorted(maps.Keys(documented)), slices.Sorted(maps.Keys(wire))); d != "" {
			t.Errorf("%s:\n%s", key(typ), d)
		}
	}
}

// fill makes every field of v differ from its zero value, so that none is left out.
func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Slice:
		if v.Type() == reflect.TypeFor[json.RawMessage]() {
			v.SetBytes([]byte("1"))
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0))
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.ValueOf("k"), reflect.ValueOf("v"))
	case reflect.Struct:
		if isLeaf(v.Type()) {
			v.Set(reflect.ValueOf(time.Unix(1, 0)))
			return
		}
		for i := range v.NumField() {
			fill(v.Field(i))
		}
	case reflect.Uint8:
		v.SetUint(1)
	case reflect.String:
		v.SetString("x")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Float64:
		v.SetFloat(1.5)
	case reflect.Uint16:
		v.SetUint(7)
	default:
		v.SetInt(7)
	}
}

func TestEveryParameterIsExplained(t *testing.T) {
	c := loadContract(t)
	for _, m := range c.methods {
		if m.Doc == "" || !strings.HasSuffix(m.Doc, ".") || strings.Count(m.Doc, ". ") > 0 {
			t.Errorf("%s: %q is not one sentence", m.Name, m.Doc)
		}
		for _, p := range c.members(m.Params) {
			if p.doc == "" {
				t.Errorf("%s: parameter %s has no comment", m.Name, p.name)
			}
		}
	}
	for _, typ := range c.types {
		if c.doc(typ) == "" {
			t.Errorf("type %s has no comment", key(typ))
		}
	}
}

var (
	heading = regexp.MustCompile(`(?m)^#+ (.+)$`)
	link    = regexp.MustCompile(`\]\(#([^)]+)\)`)
	strange = regexp.MustCompile(`[^a-z0-9 -]`)
)

func TestLinksOfThePageLeadToOneHeading(t *testing.T) {
	page, err := markdown(loadContract(t))
	if err != nil {
		t.Fatal(err)
	}
	headings := map[string]int{}
	for _, h := range heading.FindAllSubmatch(page, -1) {
		headings[strings.ReplaceAll(strange.ReplaceAllString(strings.ToLower(string(h[1])), ""), " ", "-")]++
	}
	links := link.FindAllSubmatch(page, -1)
	if len(links) < 50 {
		t.Fatalf("only %d links", len(links))
	}
	for _, l := range links {
		if n := headings[string(l[1])]; n != 1 {
			t.Errorf("%d headings for the link #%s", n, l[1])
		}
	}
}
