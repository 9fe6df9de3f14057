package main

import (
	"reflect"
	"slices"
	"strconv"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/rpcserver"
)

// The types below are those of the OpenRPC specification, version 1.3.2, as far as they are used.

type openRPCDoc struct {
	OpenRPC    string     `json:"openrpc"`
	Info       info       `json:"info"`
	Methods    []method   `json:"methods"`
	Components components `json:"components"`
}

type info struct {
	Title       string            `json:"title"`
	Description string            `json:"description"`
	License     map[string]string `json:"license"`
	Version     string            `json:"version"`
}

type components struct {
	Schemas map[string]*schema  `json:"schemas"`
	Errors  map[string]rpcError `json:"errors"`
}

// method has members of ours: the class of permission that a caller needs, what the connection carries after the response
// line, and what each line is where it carries lines.
type method struct {
	Name           string              `json:"name"`
	Summary        string              `json:"summary"`
	Description    string              `json:"description,omitempty"`
	Tags           []map[string]string `json:"tags"`
	ParamStructure string              `json:"paramStructure"`
	Params         []descriptor        `json:"params"`
	Result         descriptor          `json:"result"`
	Permission     string              `json:"x-permission"`
	Stream         rpcserver.Payload   `json:"x-stream,omitempty"`
	Line           *schema             `json:"x-line,omitempty"`
}

type descriptor struct {
	Name        string  `json:"name"`
	Description string  `json:"description,omitempty"`
	Required    bool    `json:"required,omitempty"`
	Schema      *schema `json:"schema"`
}

type rpcError struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

// schema is a JSON Schema, draft 7.
type schema struct {
	Ref                  string             `json:"$ref,omitempty"`
	AllOf                []*schema          `json:"allOf,omitempty"`
	Description          string             `json:"description,omitempty"`
	Type                 string             `json:"type,omitempty"`
	Format               string             `json:"format,omitempty"`
	Enum                 []string           `json:"enum,omitempty"`
	Items                *schema            `json:"items,omitempty"`
	Properties           map[string]*schema `json:"properties,omitempty"`
	Required             []string           `json:"required,omitempty"`
	AdditionalProperties *schema            `json:"additionalProperties,omitempty"`
}

func openRPC(c *contract) openRPCDoc {
	doc := openRPCDoc{
		OpenRPC: "1.3.2",
		Info: info{
			Title: "banger", Version: strconv.Itoa(api.ProtocolVersion), License: map[string]string{"name": "Apache-2.0"},
			Description: "The daemon's methods. docs/RPC.md has the transport, the streams and what any method may answer with: " +
				"the errors in components, whose data is an Error.",
		},
		Components: components{Schemas: map[string]*schema{}, Errors: map[string]rpcError{}},
	}
	for _, m := range c.methods {
		doc.Methods = append(doc.Methods, c.method(m))
	}
	for _, t := range append(c.types, reflect.TypeFor[api.Error]()) {
		doc.Components.Schemas[typeName(t)] = c.object(t)
	}
	for _, f := range c.failures() {
		doc.Components.Errors[f.Kind] = rpcError{f.Code, f.Doc}
	}
	return doc
}

func (c *contract) method(m rpcserver.Method) method {
	out := method{
		Name: m.Name, Summary: m.Doc, Description: c.paramsDoc(m.Params), Tags: []map[string]string{{"name": noun(m.Name)}},
		ParamStructure: "by-name", Params: []descriptor{}, Permission: m.Class.String(), Stream: m.Payload,
		Result: descriptor{Name: "result", Schema: &schema{Type: "object"}},
	}
	for _, f := range c.members(m.Params) {
		out.Params = append(out.Params, descriptor{f.name, f.doc, f.always, c.schema(f.typ)})
	}
	slices.SortStableFunc(out.Params, func(a, b descriptor) int { // required ones first, as the specification wants
		switch {
		case a.Required == b.Required:
			return 0
		case a.Required:
			return -1
		}
		return 1
	})
	if m.Line != nil {
		out.Line = c.schema(m.Line)
	}
	if m.Result != reflect.TypeFor[api.Empty]() {
		out.Result = descriptor{Name: typeName(m.Result), Schema: c.schema(m.Result)}
	}
	return out
}

// schema refers to structs, and spells out everything else.
func (c *contract) schema(t reflect.Type) *schema {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return &schema{Type: "string", Format: "date-time"}
	case t == reflect.TypeFor[[]byte](): // encoding/json
		return &schema{Type: "string", Format: "byte"}
	case isLeaf(t):
		return &schema{}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return c.schema(t.Elem())
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 { // encoding/json writes base64
			return &schema{Type: "string"}
		}
		return &schema{Type: "array", Items: c.schema(t.Elem())}
	case reflect.Map:
		return &schema{Type: "object", AdditionalProperties: c.schema(t.Elem())}
	case reflect.Struct:
		return &schema{Ref: "#/components/schemas/" + typeName(t)}
	}
	return &schema{Type: jsonType(t), Enum: c.enum(t)}
}

// jsonType is JSON Schema's name for a basic type.
func jsonType(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "boolean"
	case reflect.String:
		return "string"
	case reflect.Float64:
		return "number"
	}
	return "integer"
}

// object is the schema of a struct. It allows more members than it names: a later daemon may have added some.
func (c *contract) object(t reflect.Type) *schema {
	out := &schema{Type: "object", Description: c.doc(t), Properties: map[string]*schema{}}
	for _, f := range c.members(t) {
		s := c.schema(f.typ)
		if s.Ref != "" && f.doc != "" { // what stands beside $ref does not count
			s = &schema{AllOf: []*schema{s}}
		}
		if s.Ref == "" {
			s.Description = f.doc
		}
		out.Properties[f.name] = s
		if f.always {
			out.Required = append(out.Required, f.name)
		}
	}
	return out
}
