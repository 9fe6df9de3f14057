package app

import (
	"cmp"
	"path"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

// Selection is which rows of a table are printed, in which order and with which columns.
type Selection struct {
	Filters []string // COLUMN=PATTERN or COLUMN!=PATTERN, all of which must hold
	Sort    string   // COLUMN, or -COLUMN for the other way round
	Columns []string
}

// Flags declares --filter, --sort and --columns on cmd.
func (s *Selection) Flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVar(&s.Filters, "filter", nil, "only rows where `column=pattern` holds, such as state=run*, or column!=pattern (repeatable)")
	f.StringVar(&s.Sort, "sort", "", "order by this `column`, or with a minus before it the other way round")
	f.StringSliceVar(&s.Columns, "columns", nil, "print these `columns` only, in this order")
}

// Select returns the items that s selects of items, in its order, and the table with its columns. A column is meant by its head, in any
// case and with spaces left out. Patterns are those of path.Match.
func Select[T any](s Selection, items []T, t Table[T]) ([]T, Table[T], error) {
	for _, f := range s.Filters {
		keep, err := filter(f, t)
		if err != nil {
			return nil, t, err
		}
		items = slices.DeleteFunc(slices.Clone(items), func(it T) bool { return !keep(it) })
	}
	if s.Sort != "" {
		name, down := strings.CutPrefix(s.Sort, "-")
		c, err := column(name, t)
		if err != nil {
			return nil, t, err
		}
		items = slices.Clone(items)
		slices.SortStableFunc(items, func(a, b T) int {
			if down {
				a, b = b, a
			}
			return c.compare(a, b)
		})
	}
	if len(s.Columns) > 0 {
		var some []Column[T]
		for _, name := range s.Columns {
			c, err := column(name, t)
			if err != nil {
				return nil, t, err
			}
			some = append(some, c)
		}
		t.Columns = some
	}
	return items, t, nil
}

// compare orders by amount where the column has one, else by what is printed.
func (c Column[T]) compare(a, b T) int {
	if c.Amount != nil {
		return cmp.Compare(c.Amount(a), c.Amount(b))
	}
	return cmp.Compare(c.Cell(a), c.Cell(b))
}

func filter[T any](text string, t Table[T]) (func(T) bool, error) {
	name, pattern, ok := strings.Cut(text, "=")
	if !ok {
		return nil, errkind.WithHint(errkind.New(api.KindInvalid, "bad filter %q", text), "write it as column=pattern, such as state=running")
	}
	name, not := strings.CutSuffix(name, "!")
	c, err := column(name, t)
	if err != nil {
		return nil, err
	}
	if _, err := path.Match(pattern, ""); err != nil {
		return nil, errkind.New(api.KindInvalid, "bad pattern %q in a filter: %w", pattern, err)
	}
	return func(it T) bool {
		cell := c.Cell(it)
		if !strings.Contains(pattern, "/") {
			cell = strings.ReplaceAll(cell, "/", "\x00") // else * would stop at a slash
		}
		found, err := path.Match(pattern, cell)
		return err == nil && found != not
	}, nil
}

func column[T any](name string, t Table[T]) (Column[T], error) {
	plain := func(s string) string { return strings.ToLower(strings.ReplaceAll(s, " ", "")) }
	heads := make([]string, len(t.Columns))
	for i, c := range t.Columns {
		if plain(c.Head) == plain(name) {
			return c, nil
		}
		heads[i] = strings.ToLower(c.Head)
	}
	return Column[T]{}, errkind.WithHint(errkind.New(api.KindInvalid, "there is no column %q", name), "the columns are %s", strings.Join(heads, ", "))
}
