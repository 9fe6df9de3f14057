package worktree

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// quotePath returns path as it is where that is plain UTF-8, and quoted otherwise.
func quotePath(path string) string {
	plain := utf8.ValidString(path) && !strings.ContainsFunc(path, func(r rune) bool {
		return r < ' ' || r == 0x7f || r == '"' || r == '\\'
	})
	if plain {
		return path
	}
	return quoted(path)
}

// escapes are the characters that git has a letter for (quote.c in git's source).
var escapes = map[byte]byte{'\a': 'a', '\b': 'b', '\t': 't', '\n': 'n', '\v': 'v', '\f': 'f', '\r': 'r', '"': '"', '\\': '\\'}

// quoted quotes s as git does with core.quotePath off: in double quotes, with C's escapes, and octal numbers for other
// control characters and for bytes that are not UTF-8.
func quoted(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch c := s[0]; {
		case escapes[c] != 0:
			b.WriteByte('\\')
			b.WriteByte(escapes[c])
		case c < ' ' || c == 0x7f || r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\%03o`, c)
		default:
			b.WriteString(s[:n])
		}
		s = s[n:]
	}
	b.WriteByte('"')
	return b.String()
}
