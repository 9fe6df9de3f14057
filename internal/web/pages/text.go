package pages

import (
	"errors"
	"io"
	"net/http"
	"regexp"
	"time"
)

// escapes are what terminals take as commands (ECMA-48, 5.4 and 5.6): colours, cursor movements, titles.
var escapes = regexp.MustCompile(`\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_][^\x07\x1b]*(\x07|\x1b\\)?|\x1b[ -/]*[0-~]`)

// maxLine is how much of a line is shown, in bytes. What a guest prints may have no end.
const maxLine = 4 << 10

// lineCutter passes lines on as plain text, and cuts those that are longer than maxLine.
type lineCutter struct {
	line []byte // the present line, without its end
	cut  bool   // more of it than is kept
}

// take returns what p adds in whole lines. A line that has not ended yet is kept, and given out by rest.
func (l *lineCutter) take(p []byte) string {
	var out []byte
	for _, b := range p {
		switch {
		case b == '\n':
			out = append(out, l.rest()...)
			out = append(out, '\n')
		case len(l.line) < maxLine:
			l.line = append(l.line, b)
		default:
			l.cut = true
		}
	}
	return string(out)
}

// rest returns the line that has not ended, and begins another.
func (l *lineCutter) rest() string {
	for len(l.line) > 0 && l.line[len(l.line)-1] == '\r' {
		l.line = l.line[:len(l.line)-1]
	}
	text := Clean(string(escapes.ReplaceAll(l.line, nil)))
	if l.cut {
		text += " … (cut)"
	}
	l.line, l.cut = l.line[:0], false
	return text
}

// copyText sends r as text as it comes, in whole lines, until either side ends. The request may take as long as it does.
func copyText(w http.ResponseWriter, r io.Reader) error {
	control := http.NewResponseController(w)
	if err := errors.Join(control.SetWriteDeadline(time.Time{}), control.Flush()); err != nil {
		return err
	}
	var lines lineCutter
	buf := make([]byte, 64<<10)
	for {
		n, err := r.Read(buf)
		if text := lines.take(buf[:n]); text != "" {
			if _, err := io.WriteString(w, text); err != nil {
				return err
			}
			if err := control.Flush(); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			_, err := io.WriteString(w, lines.rest())
			return err
		}
		if err != nil {
			return err
		}
	}
}
