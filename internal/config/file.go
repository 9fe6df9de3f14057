package config

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

// decode lays the file's values over c.
func (c *Config) decode(file string, data []byte) error {
	err := toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields().Decode(c)
	var missing *toml.StrictMissingError
	if errors.As(err, &missing) {
		e := &missing.Errors[0]
		line, _ := e.Position()
		return c.unknown(fmt.Sprintf("%s:%d", file, line), strings.Join(e.Key(), "."))
	}
	var bad *toml.DecodeError
	if errors.As(err, &bad) {
		line, _ := bad.Position()
		return errkind.New(api.KindInvalid, "%s:%d: %s", file, line, strings.TrimPrefix(bad.Error(), "toml: "))
	}
	if err != nil {
		return errkind.New(api.KindInvalid, "%s: %w", file, err)
	}
	var set map[string]any
	if err := toml.Unmarshal(data, &set); err != nil {
		return errkind.New(api.KindInvalid, "%s: %w", file, err)
	}
	for _, k := range c.keys() {
		if has(set, strings.Split(k.name, ".")) {
			c.origin[k.name] = "file " + file
		}
	}
	return nil
}

// has reports whether the decoded document holds a value under the dotted key.
func has(document map[string]any, parts []string) bool {
	v, ok := document[parts[0]]
	if !ok || len(parts) == 1 {
		return ok
	}
	sub, _ := v.(map[string]any)
	return has(sub, parts[1:])
}

// unknown is the error for a key that does not exist, with the name that was probably meant.
func (c *Config) unknown(where, name string) error {
	nearest, best := "", len(name)
	consider := func(candidate string, d int) {
		if d < best {
			nearest, best = candidate, d
		}
	}
	for _, k := range c.keys() {
		table, last := split(k.name)
		if _, own := split(name); own == last {
			consider(k.name, 0) // the right key in the wrong table
		}
		consider(k.name, distance(name, k.name))
		if table != "" {
			consider(table, distance(name, table))
		}
	}
	err := errkind.New(api.KindInvalid, "%s: unknown configuration key %q", where, name)
	if best > 3+len(name)/4 || nearest == "" {
		return errkind.WithHint(err, "`banger config show` lists the keys there are")
	}
	return errkind.WithHint(err, "did you mean %q? `banger config show` lists all keys", nearest)
}

// split parts a dotted key into its table, empty at the top, and its last part.
func split(name string) (table, last string) {
	i := strings.LastIndexByte(name, '.')
	return name[:max(i, 0)], name[i+1:]
}

// distance is the number of bytes to insert, delete or replace that make a of b (Levenshtein's).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			substitute := diagonal
			if a[i] != b[j] {
				substitute++
			}
			diagonal = row[j+1]
			row[j+1] = min(substitute, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
