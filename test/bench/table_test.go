package bench

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"
)

// row is one figure. Beside is what it is compared with and Target what issue 2 asks for; either may be empty.
type row struct {
	what   string
	value  string
	beside string
	ratio  float64 // value to beside; 0 where there is none
	target string
	met    bool // of value or ratio; only with a target
}

// table collects rows in the order in which they were first found.
type table struct{ rows []row }

// add notes a figure, in place of an earlier one of the same name.
func (t *table) add(r row) {
	if i := slices.IndexFunc(t.rows, func(o row) bool { return o.what == r.what }); i >= 0 {
		t.rows[i] = r
		return
	}
	t.rows = append(t.rows, r)
}

func (t *table) print(w io.Writer) {
	if len(t.rows) == 0 {
		return
	}
	out := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(out, "\nWHAT\tFIGURE\tBESIDE\tRATIO\tTARGET\t")
	for _, r := range t.rows {
		ratio, target := "-", "-"
		if r.ratio > 0 {
			ratio = fmt.Sprintf("%.2f", r.ratio)
		}
		if r.target != "" {
			target = r.target + " missed"
			if r.met {
				target = r.target + " met"
			}
		}
		beside := r.beside
		if beside == "" {
			beside = "-"
		}
		fmt.Fprintf(out, "%s\t%s\t%s\t%s\t%s\t\n", r.what, r.value, beside, ratio, target)
	}
	out.Flush()
}

// samples are measurements of one thing.
type samples []time.Duration

// at returns the value that a share p of the samples does not exceed: 0.5 is the median.
func (s samples) at(p float64) time.Duration {
	sorted := slices.Sorted(slices.Values(s))
	return sorted[min(int(p*float64(len(sorted))), len(sorted)-1)]
}

func (s samples) median() time.Duration { return s.at(0.5) }

// ratio is the median of the ratios of s to its neighbours in floor.
func (s samples) ratio(floor samples) float64 {
	ratios := make([]float64, len(s))
	for i := range s {
		ratios[i] = float64(s[i]) / float64(floor[i])
	}
	slices.Sort(ratios)
	return ratios[len(ratios)/2]
}

// ms prints a duration in milliseconds.
func ms(d time.Duration) string {
	const decimals = 10 // from here on fractions are noise
	if d >= decimals*time.Millisecond {
		return fmt.Sprintf("%.0f ms", float64(d)/float64(time.Millisecond))
	}
	return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
}

// within makes a row for samples whose median is to be below limit.
func within(what string, s samples, limit time.Duration) row {
	return row{what: what, value: ms(s.median()), target: "< " + ms(limit), met: s.median() < limit}
}

// below makes a row for an amount that is to be below limit.
func below(what string, amount, limit float64, unit string) row {
	return row{what: what, value: fmt.Sprintf("%.1f %s", amount, unit), target: fmt.Sprintf("< %g %s", limit, unit), met: amount < limit}
}

func TestTable(t *testing.T) {
	var found table
	slow := samples{30 * time.Millisecond, 10 * time.Millisecond, 20 * time.Millisecond}
	found.add(within("start", slow, 20*time.Millisecond))
	found.add(row{what: "run", value: "2 s", beside: "1 s", ratio: 2})
	found.add(within("start", slow, 21*time.Millisecond)) // measured again
	found.add(within("list", samples{time.Millisecond}, time.Millisecond))
	var text strings.Builder
	found.print(&text)
	want := `
WHAT    FIGURE   BESIDE   RATIO   TARGET            
start   20 ms    -        -       < 21 ms met       
run     2 s      1 s      2.00    -                 
list    1.0 ms   -        -       < 1.0 ms missed   
`
	if text.String() != want {
		t.Errorf("the table is\n%s\nwant\n%s", text.String(), want)
	}
	if got := slow.ratio(samples{10 * time.Millisecond, 10 * time.Millisecond, 40 * time.Millisecond}); got != 1 {
		t.Errorf("the ratio is %v, want the median of 3, 1 and 1/2", got)
	}
	if got := slow.at(0.99); got != 30*time.Millisecond {
		t.Errorf("the 99th percentile of three is %v, want the largest", got)
	}
}
