package app

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"text/template"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

// Output is how a command prints data: a table for people, JSON or YAML with the names of package api for programs, a Go
// template over its types, or names only.
type Output struct {
	Form     string // table, json, yaml
	Template string
	Quiet    bool
}

// Flags declares -o, --format and -q on cmd.
func (o *Output) Flags(cmd *cobra.Command) {
	f := cmd.Flags()
	o.Form = "table"
	f.VarP((*formFlag)(&o.Form), "output", "o", "print as table, json or yaml")
	f.StringVar(&o.Template, "format", "", "print each item with this Go template, such as '{{.Name}} {{.State}}'")
	f.BoolVarP(&o.Quiet, "quiet", "q", false, "print names only")
	cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json", "yaml"}, cobra.ShellCompDirectiveNoFileComp))
}

// formFlag refuses an unknown form before anything is asked of the daemon.
type formFlag string

func (f *formFlag) String() string { return string(*f) }
func (*formFlag) Type() string     { return "form" }

func (f *formFlag) Set(v string) error {
	if v != "table" && v != "json" && v != "yaml" {
		return errkind.New(api.KindInvalid, "unknown output form %q", v)
	}
	*f = formFlag(v)
	return nil
}

// Column is one column of a table.
type Column[T any] struct {
	Head   string
	Cell   func(T) string
	Amount func(T) int64 // what it is sorted by; nil: its text
}

// Table says how items of one type are printed.
type Table[T any] struct {
	Columns []Column[T]
	Name    func(T) string // what -q prints
}

// PrintList prints items: a row, a template run or a name each, or one JSON or YAML list.
func PrintList[T any](a *App, o Output, items []T, t Table[T]) error {
	if items == nil {
		items = []T{}
	}
	if done, err := o.print(a.Out, items, func(each func(any, string) error) error {
		for _, it := range items {
			if err := each(it, t.Name(it)); err != nil {
				return err
			}
		}
		return nil
	}); done || err != nil {
		return err
	}
	out := bufio.NewWriter(a.Out) // a tabwriter writes every cell by itself
	tw := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	heads := make([]string, len(t.Columns))
	for i, c := range t.Columns {
		heads[i] = c.Head
	}
	fmt.Fprintln(tw, strings.Join(heads, "\t"))
	for _, it := range items {
		cells := make([]string, len(t.Columns))
		for i, c := range t.Columns {
			cells[i] = orDash(c.Cell(it))
		}
		fmt.Fprintln(tw, strings.Join(cells, "\t"))
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	return out.Flush()
}

// Field is one line of a description.
type Field struct{ Name, Value string }

// PrintOne prints one item: as lines "Name: value" without the empty ones, or in the form asked for.
func PrintOne(a *App, o Output, item any, name string, fields []Field) error {
	if done, err := o.print(a.Out, item, func(each func(any, string) error) error { return each(item, name) }); done || err != nil {
		return err
	}
	tw := tabwriter.NewWriter(a.Out, 0, 8, 2, ' ', 0)
	for _, f := range fields {
		if f.Value != "" {
			fmt.Fprintf(tw, "%s:\t%s\n", f.Name, strings.ReplaceAll(f.Value, "\n", "\n\t"))
		}
	}
	return tw.Flush()
}

// print prints every form but the table, and says whether it did.
func (o Output) print(w io.Writer, whole any, items func(each func(any, string) error) error) (bool, error) {
	switch {
	case o.Template != "":
		t, err := template.New("format").Option("missingkey=error").Parse(o.Template + "\n")
		if err != nil {
			return true, errkind.New(api.KindInvalid, "--format: %w", err)
		}
		return true, items(func(it any, _ string) error {
			if err := t.Execute(w, it); err != nil {
				return errkind.New(api.KindInvalid, "--format: %w", err)
			}
			return nil
		})
	case o.Quiet:
		return true, items(func(_ any, name string) error { _, err := fmt.Fprintln(w, name); return err })
	case o.Form == "json":
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		return true, enc.Encode(whole)
	case o.Form == "yaml":
		b, err := json.Marshal(whole)
		if err == nil {
			b, err = yaml.JSONToYAML(b)
		}
		if err != nil {
			return true, err
		}
		_, err = w.Write(b)
		return true, err
	}
	return false, nil
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// Size writes n bytes for people: 512M, 1.5G. Units are powers of 1024, as the size flags take them.
func Size(n int64) string {
	if n <= 0 {
		return ""
	}
	units := []string{"", "K", "M", "G", "T"}
	v, i := float64(n), 0
	for v >= 1024 && i < len(units)-1 {
		v, i = v/1024, i+1
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", v), ".0") + units[i]
}

// Age writes how long before now t was, in its largest unit.
func Age(now, t time.Time) string {
	if t.IsZero() {
		return ""
	}
	d := max(now.Sub(t), 0)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// Stamp writes t in local time, empty when it is zero.
func Stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format(time.DateTime)
}
