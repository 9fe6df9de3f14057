package fctest

import (
	_ "embed" // the description
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
)

//go:embed firecracker.yaml
var description []byte

// schema is a definition of the description, as much of it as matters to requests.
type schema struct {
	Ref        string            `yaml:"$ref"`
	Type       string            `yaml:"type"`
	Required   []string          `yaml:"required"`
	Properties map[string]schema `yaml:"properties"`
	Items      *schema           `yaml:"items"`
	Enum       []string          `yaml:"enum"`
	Minimum    *float64          `yaml:"minimum"`
	Maximum    *float64          `yaml:"maximum"`
}

// operation is what may be asked of a path by one method.
type operation struct {
	Parameters []struct {
		In     string `yaml:"in"`
		Schema schema `yaml:"schema"`
	} `yaml:"parameters"`
}

type openAPI struct {
	Paths       map[string]map[string]operation `yaml:"paths"`
	Definitions map[string]schema               `yaml:"definitions"`
}

func readDescription() (*openAPI, error) {
	api := new(openAPI)
	if err := yaml.Unmarshal(description, api); err != nil {
		return nil, fmt.Errorf("read the description of the API: %w", err)
	}
	return api, nil
}

// find returns what the description says of a request, and the variable part of its path.
func (a *openAPI) find(method, path string) (op operation, id string, ok bool) {
	for pattern, methods := range a.Paths {
		prefix, variable, _ := strings.Cut(pattern, "{")
		rest, match := strings.CutPrefix(path, prefix)
		if !match || variable == "" && rest != "" || strings.Contains(rest, "/") {
			continue
		}
		op, ok := methods[strings.ToLower(method)]
		if ok {
			return op, rest, true
		}
	}
	return operation{}, "", false
}

// checkBody checks a request's body. What it finds is in the words of the real one's JSON parser.
func (a *openAPI) checkBody(op operation, body []byte) error {
	for _, p := range op.Parameters {
		if p.In != "body" {
			continue
		}
		var value any
		if err := json.Unmarshal(body, &value); err != nil {
			return err
		}
		return a.check(p.Schema, value)
	}
	return nil
}

func (a *openAPI) check(s schema, value any) error {
	if s.Ref != "" {
		s = a.Definitions[strings.TrimPrefix(s.Ref, "#/definitions/")]
	}
	switch v := value.(type) {
	case map[string]any:
		return a.checkObject(s, v)
	case []any:
		for _, item := range v {
			if s.Type != "array" {
				return fmt.Errorf("invalid type: sequence, expected %s", s.Type)
			}
			if err := a.check(*s.Items, item); err != nil {
				return err
			}
		}
	case string:
		return checkString(s, v)
	case bool:
		if s.Type != "boolean" {
			return fmt.Errorf("invalid type: boolean `%v`, expected %s", v, s.Type)
		}
	case float64:
		return checkNumber(s, v)
	}
	return nil
}

func (a *openAPI) checkObject(s schema, v map[string]any) error {
	if s.Type != "object" {
		return fmt.Errorf("invalid type: map, expected %s", s.Type)
	}
	for _, name := range slices.Sorted(maps.Keys(v)) {
		property, ok := s.Properties[name]
		if !ok {
			return fmt.Errorf("unknown field `%s`", name)
		}
		if err := a.check(property, v[name]); err != nil {
			return err
		}
	}
	for _, name := range s.Required {
		if _, ok := v[name]; !ok {
			return fmt.Errorf("missing field `%s`", name)
		}
	}
	return nil
}

func checkString(s schema, v string) error {
	switch {
	case s.Type != "string":
		return fmt.Errorf("invalid type: string %q", v)
	case s.Enum != nil && !slices.Contains(s.Enum, v):
		return fmt.Errorf("unknown variant `%s`", v)
	}
	return nil
}

// checkNumber leaves the bounds of vcpu_count to the machine's own check, which has words for them.
func checkNumber(s schema, v float64) error {
	switch {
	case s.Type != "integer":
		return fmt.Errorf("invalid type: number `%v`, expected %s", v, s.Type)
	case v != math.Trunc(v):
		return fmt.Errorf("invalid type: floating point `%v`", v)
	case v < 0 || s.Minimum != nil && v < *s.Minimum && *s.Minimum > 1:
		return fmt.Errorf("invalid value: integer `%v`", v)
	}
	return nil
}
