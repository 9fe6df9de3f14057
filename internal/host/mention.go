package host

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
)

// MentionedBelow returns the names directly below the directory dir that command lines of processes mention, as in DIR/NAME/x.
// It is a hint as to what to look at, and no more: anybody may mention anything.
func MentionedBelow(dir string) ([]string, error) {
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return nil, err
	}
	prefix := []byte(filepath.Clean(dir) + "/")
	var names []string
	for _, path := range lines {
		line, err := os.ReadFile(path) // a process that ended meanwhile cannot be read
		if err != nil {
			continue
		}
		for {
			var found bool
			if _, line, found = bytes.Cut(line, prefix); !found {
				break
			}
			if end := bytes.IndexAny(line, "/,\x00 "); end > 0 {
				names = append(names, string(line[:end]))
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}
