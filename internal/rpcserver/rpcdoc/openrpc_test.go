package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestOpenRPCIsValid(t *testing.T) {
	files, err := render(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, complaint := range checkOpenRPC(t, files["docs/openrpc.json"]) {
		t.Error(complaint)
	}
}

// Each edit breaks one rule of the specification; the checker must say so.
func TestTheCheckerOfOpenRPCFindsFaults(t *testing.T) {
	files, err := render(root)
	if err != nil {
		t.Fatal(err)
	}
	for name, edit := range map[string][2]string{
		"a version of another specification":    {`"openrpc": "1.3.2"`, `"openrpc": "2.0.0"`},
		"no title":                              {`"title": "banger",`, ``},
		"a member that the specification lacks": {`"summary": "Lists images."`, `"sumary": "Lists images."`},
		"a method twice":                        {`"name": "vm.kill"`, `"name": "vm.get"`},
		"a reference to nothing":                {`"$ref": "#/components/schemas/Doctor"`, `"$ref": "#/components/schemas/Doktor"`},
		"a parameter without a schema":          {`"name": "force",`, `"nam": "force",`},
		"a required member without a schema": {`"required": [
          "checks"`, `"required": [
          "cheques"`},
		"a type that JSON Schema lacks":     {`"type": "number"`, `"type": "float"`},
		"a code that is no integer":         {`"code": 1,`, `"code": "1",`},
		"an unknown way to pass parameters": {`"paramStructure": "by-name"`, `"paramStructure": "by-value"`},
	} {
		t.Run(name, func(t *testing.T) {
			spec := files["docs/openrpc.json"]
			if !bytes.Contains(spec, []byte(edit[0])) {
				t.Fatalf("the document has no %s", edit[0])
			}
			if len(checkOpenRPC(t, bytes.Replace(spec, []byte(edit[0]), []byte(edit[1]), 1))) == 0 {
				t.Error("no complaint")
			}
		})
	}
}

// checkOpenRPC holds a document against the rules of the OpenRPC 1.3 meta-schema for the objects that it uses, and resolves
// its references. It returns what is wrong.
func checkOpenRPC(t *testing.T, data []byte) []string {
	t.Helper()
	var doc map[string]any
	if err := json.Unmarshal(data, &doc); err != nil {
		t.Fatal(err)
	}
	c := &specChecker{doc: doc}
	c.object("document", doc, "openrpc info methods", "servers components externalDocs")
	if v, _ := doc["openrpc"].(string); !regexp.MustCompile(`^1\.3\.\d+$`).MatchString(v) {
		c.complain("openrpc: %q is no version of 1.3", v)
	}
	c.object("info", doc["info"], "title version", "description termsOfService contact license")
	methods, _ := doc["methods"].([]any)
	names := map[string]bool{}
	for _, m := range methods {
		c.method(m, names)
	}
	components, _ := doc["components"].(map[string]any)
	schemas, _ := components["schemas"].(map[string]any)
	for name, s := range schemas {
		c.schema("schema "+name, s)
	}
	failures, _ := components["errors"].(map[string]any)
	for name, e := range failures {
		fields := c.object("error "+name, e, "code message", "data")
		if code, ok := fields["code"].(float64); !ok || code != float64(int(code)) {
			c.complain("error %s: code %v is no integer", name, fields["code"])
		}
	}
	if len(methods) == 0 || len(schemas) == 0 || len(failures) == 0 {
		c.complain("there are no methods, schemas or errors")
	}
	return c.found
}

type specChecker struct {
	doc   map[string]any
	found []string
}

func (c *specChecker) complain(format string, args ...any) {
	c.found = append(c.found, fmt.Sprintf(format, args...))
}

// object checks that v has the required members, and no others than these, the optional ones and extensions (x-…).
func (c *specChecker) object(where string, v any, required, optional string) map[string]any {
	fields, ok := v.(map[string]any)
	if !ok {
		c.complain("%s: %v is no object", where, v)
	}
	must := strings.Fields(required)
	for _, name := range must {
		if _, ok := fields[name]; !ok {
			c.complain("%s: %s is missing", where, name)
		}
	}
	known := append(must, strings.Fields(optional)...)
	for name := range fields {
		if !slices.Contains(known, name) && !strings.HasPrefix(name, "x-") {
			c.complain("%s: %s is unknown", where, name)
		}
	}
	return fields
}

func (c *specChecker) method(v any, names map[string]bool) {
	m := c.object("method", v, "name params", "summary description tags paramStructure result errors links servers examples deprecated externalDocs")
	name, _ := m["name"].(string)
	if name == "" || names[name] {
		c.complain("method %q: the name is empty or stands twice", name)
	}
	names[name] = true
	if how, ok := m["paramStructure"]; ok && how != "by-name" && how != "by-position" && how != "either" {
		c.complain("method %s: paramStructure %v", name, how)
	}
	params, ok := m["params"].([]any)
	if !ok {
		c.complain("method %s: params is no array", name)
	}
	optionalSeen, seen := false, map[any]bool{}
	for _, p := range params {
		d := c.descriptor("parameter of "+name, p)
		if seen[d["name"]] {
			c.complain("method %s: parameter %v stands twice", name, d["name"])
		}
		seen[d["name"]] = true
		if d["required"] == true && optionalSeen {
			c.complain("method %s: required parameter %v comes after an optional one", name, d["name"])
		}
		optionalSeen = optionalSeen || d["required"] != true
	}
	c.descriptor("result of "+name, m["result"])
	if line, ok := m["x-line"]; ok {
		c.schema("line of "+name, line)
	}
}

func (c *specChecker) descriptor(where string, v any) map[string]any {
	d := c.object(where, v, "name schema", "description summary required deprecated")
	c.schema(fmt.Sprintf("%s %v", where, d["name"]), d["schema"])
	return d
}

// schema checks v against the meta-schema of JSON Schema draft 7, for the keywords that the generator uses.
func (c *specChecker) schema(where string, v any) {
	s := c.object(where, v, "", "$ref allOf description type format enum items properties required additionalProperties")
	if ref, ok := s["$ref"].(string); ok {
		c.resolve(where, ref)
		if len(s) > 1 {
			c.complain("%s: what stands beside $ref does not count", where)
		}
	}
	types := []any{"object", "array", "string", "integer", "number", "boolean", "null"}
	if typ, ok := s["type"]; ok && !slices.Contains(types, typ) {
		c.complain("%s: type %v", where, typ)
	}
	properties, _ := s["properties"].(map[string]any)
	for name, p := range properties {
		c.schema(where+"."+name, p)
	}
	required, _ := s["required"].([]any)
	for _, name := range required {
		if _, ok := properties[fmt.Sprint(name)]; !ok {
			c.complain("%s: required member %v has no schema", where, name)
		}
	}
	for _, key := range []string{"items", "additionalProperties"} {
		if sub, ok := s[key]; ok {
			c.schema(where+"."+key, sub)
		}
	}
	all, _ := s["allOf"].([]any)
	for _, sub := range all {
		c.schema(where+".allOf", sub)
	}
}

// resolve follows a JSON pointer (RFC 6901) in the document.
func (c *specChecker) resolve(where, ref string) {
	at := any(c.doc)
	for _, step := range strings.Split(strings.TrimPrefix(ref, "#/"), "/") {
		fields, _ := at.(map[string]any)
		at = fields[step]
	}
	if at == nil || !strings.HasPrefix(ref, "#/") {
		c.complain("%s: %s refers to nothing", where, ref)
	}
}
