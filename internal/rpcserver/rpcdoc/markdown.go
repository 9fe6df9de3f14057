package main

import (
	"bytes"
	_ "embed"
	"reflect"
	"strings"
	"text/template"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/frame"
)

// page is the text around what is generated.
//
//go:embed rpc.md.tmpl
var page string

// section is one method or type of the page. What a type does not have is empty.
type section struct {
	Title, Doc string
	Class      string // of permission
	Payload    string
	ParamsDoc  string
	Result     string
	Line       string
	Rows       []row // parameters or members
}

// Anchor is where links to the section lead, as Markdown on the web has it.
func (s section) Anchor() string { return anchor(s.Title) }

func anchor(title string) string { return strings.ReplaceAll(strings.ToLower(title), ".", "") }

type row struct{ Name, Type, Doc string }

// markdown renders docs/RPC.md.
func markdown(c *contract) ([]byte, error) {
	var methods, types []section
	for _, m := range c.methods {
		s := section{Title: m.Name, Doc: m.Doc, Class: m.Class.String(), Payload: payload(m.Payload),
			ParamsDoc: c.paramsDoc(m.Params), Rows: c.rows(m.Params)}
		if m.Result != reflect.TypeFor[api.Empty]() {
			s.Result = c.typeText(m.Result)
		}
		if m.Line != nil {
			s.Line = c.typeText(m.Line)
		}
		methods = append(methods, s)
	}
	for _, t := range c.types {
		types = append(types, section{Title: typeName(t), Doc: c.doc(t), Rows: c.rows(t)})
	}
	var payloads []section
	for _, t := range []reflect.Type{reflect.TypeFor[frame.WindowSize](), reflect.TypeFor[frame.ExitStatus]()} {
		payloads = append(payloads, section{Title: t.Name(), Doc: c.doc(t), Rows: c.rows(t)})
	}
	tmpl, err := template.New("page").Parse(page)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = tmpl.Execute(&out, map[string]any{
		"Protocol": api.ProtocolVersion, "MaxLine": api.MaxLine >> 20, "MaxPayload": frame.MaxPayload >> 10,
		"Failures": c.failures(), "Frames": c.frames(), "Payloads": payloads, "Methods": methods, "Types": types,
		"Error": section{Rows: c.rows(reflect.TypeFor[api.Error]())},
	})
	return out.Bytes(), err
}

// frames are the frame types: number, name, payload.
func (c *contract) frames() []row {
	var out []row
	for i, v := range c.src["frame.Type"].values {
		doc := strings.TrimPrefix(v.doc, "payload: ")
		out = append(out, row{v.literal, frame.Type(i + 1).String(), doc})
	}
	return out
}

func (c *contract) rows(t reflect.Type) []row {
	var out []row
	for _, f := range c.members(t) {
		out = append(out, row{f.name, c.typeText(f.typ), strings.ReplaceAll(f.doc, "|", `\|`)})
	}
	return out
}

// typeText names a type in a table, with a link where the page describes it.
func (c *contract) typeText(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return "time"
	case t == reflect.TypeFor[[]byte](): // encoding/json
		return "string, base64"
	case isLeaf(t):
		return "any"
	}
	switch t.Kind() {
	case reflect.Pointer:
		return c.typeText(t.Elem())
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return "string (base64)"
		}
		return "array of " + c.typeText(t.Elem())
	case reflect.Map:
		return "map of " + c.typeText(t.Elem())
	case reflect.Struct:
		return "[" + typeName(t) + "](#type-" + anchor(typeName(t)) + ")"
	}
	if values := c.enum(t); values != nil {
		return strings.Join(values, ", ")
	}
	return jsonType(t)
}
