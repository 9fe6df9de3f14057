package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/rpcserver"
)

// contract is the method table with everything that it refers to.
type contract struct {
	src     source
	methods []rpcserver.Method
	types   []reflect.Type // structs of results, lines and members of parameters, by name
}

func newContract(methods []rpcserver.Method, src source) *contract {
	c := &contract{src: src, methods: slices.Clone(methods)}
	slices.SortFunc(c.methods, func(a, b rpcserver.Method) int {
		return cmp.Or(cmp.Compare(nounOrder(a.Name), nounOrder(b.Name)), cmp.Compare(a.Name, b.Name))
	})
	for _, m := range c.methods {
		c.collect(m.Result)
		if m.Line != nil {
			c.collect(m.Line)
		}
		for _, f := range c.members(m.Params) {
			c.collect(f.typ)
		}
	}
	slices.SortFunc(c.types, func(a, b reflect.Type) int { return cmp.Compare(typeName(a), typeName(b)) })
	return c
}

func noun(method string) string { return method[:strings.IndexByte(method, '.')] }

// nounOrder puts what everybody needs first.
func nounOrder(method string) int {
	return slices.Index([]string{"daemon", "vm", "workspace", "image", "kernel", "operation"}, noun(method))
}

// collect adds the structs that t is made of.
func (c *contract) collect(t reflect.Type) {
	switch {
	case t.Kind() == reflect.Slice || t.Kind() == reflect.Pointer || t.Kind() == reflect.Map:
		c.collect(t.Elem())
	case t.Kind() == reflect.Struct && !isLeaf(t) && t != reflect.TypeFor[api.Empty]() && !slices.Contains(c.types, t):
		c.types = append(c.types, t)
		for _, f := range c.members(t) {
			c.collect(f.typ)
		}
	}
}

// isLeaf reports whether t has a form of its own on the wire.
func isLeaf(t reflect.Type) bool {
	return t == reflect.TypeFor[time.Time]() || t == reflect.TypeFor[json.RawMessage]()
}

// typeName is a type's name in the documents: package api's as they are, the others with their package.
func typeName(t reflect.Type) string { return strings.TrimPrefix(key(t), "api.") }

// member is one field of a struct as the wire has it. Embedded structs' fields stand beside the others.
type member struct {
	name   string
	doc    string
	typ    reflect.Type
	always bool // is never left out
}

func (c *contract) members(t reflect.Type) []member {
	var out []member
	names := wireNamesOf(t)
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && name == "" {
			out = append(out, c.members(f.Type)...)
			continue
		}
		always := !strings.Contains(options, "omitempty") && !strings.Contains(options, "omitzero")
		out = append(out, member{name, wireNames(c.src[key(t)].fields[f.Name], names), f.Type, always})
	}
	return out
}

// wireNamesOf returns the names of a struct's own fields on the wire, by their Go names.
func wireNamesOf(t reflect.Type) map[string]string {
	names := map[string]string{}
	for i := range t.NumField() {
		f := t.Field(i)
		names[f.Name], _, _ = strings.Cut(f.Tag.Get("json"), ",")
	}
	return names
}

// doc says what a type is, with the names of its fields as the wire has them.
func (c *contract) doc(t reflect.Type) string {
	names := wireNamesOf(t)
	delete(names, t.Name()) // there it means the type
	return wireNames(c.src[key(t)].doc, names)
}

var goName = regexp.MustCompile(`\b[A-Z][a-z]\w*\b`)

// wireNames puts the wire's names where a comment has those of Go fields. Words in capitals are left alone: they mean the
// thing, as in "VMs that run".
func wireNames(doc string, names map[string]string) string {
	return goName.ReplaceAllStringFunc(doc, func(word string) string {
		if name := names[word]; name != "" {
			return "`" + name + "`"
		}
		return word
	})
}

var parameterOf = regexp.MustCompile(`^\w+ is the parameter of .+?(?:, a stream of [a-z ]+)?(?:[:,.]\s+|\.$)`)

// paramsDoc is what is said of a method's parameters as a whole, and is not plain from the method.
func (c *contract) paramsDoc(t reflect.Type) string {
	doc := c.doc(t)
	opening := parameterOf.FindString(doc)
	rest := doc[len(opening):]
	if opening == "" || rest == "" {
		return ""
	}
	return strings.ToUpper(rest[:1]) + rest[1:]
}

// failure is one error kind with its codes.
type failure struct {
	Kind, Doc  string
	Code, Exit int
}

func (c *contract) failures() []failure {
	var out []failure
	for _, v := range c.src["api.ErrorKind"].values {
		kind := api.ErrorKind(v.literal)
		out = append(out, failure{v.literal, v.doc, kind.Code(), errkind.ExitCode(errkind.New(kind, "example"))})
	}
	return out
}

// enum returns the values of a string type that has several, else nil.
func (c *contract) enum(t reflect.Type) []string {
	values := c.src[key(t)].values
	if t.Kind() != reflect.String || len(values) < 2 {
		return nil
	}
	var out []string
	for _, v := range values {
		out = append(out, v.literal)
	}
	return out
}

// payload is what a method's connection carries after the response line, in words.
func payload(p rpcserver.Payload) string {
	if p == rpcserver.NoStream {
		return "call"
	}
	return fmt.Sprintf("stream of %s", p)
}
