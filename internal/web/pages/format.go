package pages

import (
	"fmt"
	"html/template"
	"strings"
	"time"
	"unicode"

	"github.com/banger-vm/banger/api"
)

func funcs() template.FuncMap {
	return template.FuncMap{
		"size": size, "mib": func(n int) string { return size(int64(n) << 20) }, "ago": ago, "clean": Clean, "short": short, "took": took,
		"join": strings.Join, "live": live, "percent": percent, "command": commandLine, "eventText": eventText, "opState": opState,
		"clock": func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05Z") },
	}
}

// size writes bytes with three digits and a binary unit.
func size(n int64) string {
	f, units := float64(n), []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	i := 0
	for f >= 1000 && i < len(units)-1 {
		f, i = f/1024, i+1
	}
	if i == 0 || f >= 99.5 || f == float64(int64(f)) {
		return fmt.Sprintf("%.0f %s", f, units[i])
	}
	return fmt.Sprintf("%.1f %s", f, units[i])
}

// ago says how long ago t was, roughly.
func ago(t time.Time) string {
	d := time.Since(t)
	switch {
	case t.IsZero():
		return "never"
	case d < 5*time.Second:
		return "now"
	}
	return short(d) + " ago"
}

// short writes a duration in its largest unit.
func short(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d d", int(d.Hours()/24))
}

// took writes how long a stage of an operation took.
func took(ms int64) string {
	if ms < 0 {
		return "…"
	}
	return fmt.Sprintf("%.1f s", float64(ms)/1000)
}

func percent(done, total int64) int64 {
	if total <= 0 {
		return 0
	}
	return min(100, done*100/total)
}

// live reports whether a VM in that state has a machine.
func live(state string) bool { return state == "running" || state == "paused" }

// opState is a state's class in the style sheet.
func opState(s api.OperationState) string {
	switch s {
	case api.OperationSucceeded:
		return "stopped"
	case api.OperationRunning:
		return "starting"
	}
	return "failed"
}

// eventText says what happened in an event, without its subject.
func eventText(e api.Event) string {
	text := string(e.Type)
	switch {
	case e.Before != "":
		text = e.Before + " → " + e.State
	case e.Kind != "":
		text = e.Kind + " " + strings.TrimPrefix(string(e.Type), "operation.")
		if e.State != "" && e.State != "running" {
			text += ": " + e.State
		}
	}
	if e.Message != "" {
		text += ": " + e.Message
	}
	return Clean(text)
}

// Clean replaces what could change how other text is shown: control characters but tab and newline, and those that turn the
// direction of writing.
func Clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return r
		case unicode.IsControl(r), unicode.Is(unicode.Bidi_Control, r), r == '\u2028', r == '\u2029':
			return '\uFFFD'
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
}
