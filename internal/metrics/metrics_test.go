package metrics_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/metrics"
)

// busy returns metrics of which each has been used.
func busy(t *testing.T) *metrics.Metrics {
	t.Helper()
	db := filepath.Join(t.TempDir(), "db")
	if err := os.WriteFile(db, make([]byte, 100), 0o600); err != nil {
		t.Fatal(err)
	}
	m := metrics.New("v1.2.3", metrics.Sources{
		VMs: func(context.Context) ([]banger.VM, error) {
			return []banger.VM{{State: banger.Running}, {State: banger.Running}, {State: banger.Stopped}}, nil
		},
		LastEvent:  func(context.Context) (int64, error) { return 42, nil },
		StoreFiles: []string{db, db + "-wal"}, Log: slog.New(slog.DiscardHandler),
	})
	begun := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	m.OperationEnded(api.Operation{Kind: "vm.create", State: api.OperationSucceeded, Created: begun, Ended: begun.Add(3 * time.Second),
		Stages: []api.Stage{{Name: "clone disks", TookMS: 20}, {Name: "boot guest", TookMS: 2500}}})
	m.CallEnded("vm.list", 2*time.Millisecond, nil)
	m.CallEnded("vm.get", time.Second, errkind.New(api.KindNotFound, "no VM"))
	ended := m.StreamBegan("vm.exec")
	m.StreamBegan("vm.exec")
	ended(errkind.New(api.KindGuest, "gone"))
	return m
}

func TestWhatIsCounted(t *testing.T) {
	text, err := busy(t).Text()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(text, "\n")
	for _, want := range []string{
		`banger_vms{state="running"} 2`, `banger_vms{state="stopped"} 1`, `banger_vms{state="failed"} 0`,
		`banger_operation_duration_seconds_sum{kind="vm.create",result="succeeded"} 3`,
		`banger_operation_duration_seconds_bucket{kind="vm.create",result="succeeded",le="2"} 0`,
		`banger_operation_duration_seconds_bucket{kind="vm.create",result="succeeded",le="4"} 1`,
		`banger_operation_stage_duration_seconds_sum{kind="vm.create",stage="boot guest"} 2.5`,
		`banger_rpc_duration_seconds_count{method="vm.list"} 1`, `banger_rpc_duration_seconds_sum{method="vm.get"} 1`,
		`banger_rpc_errors_total{kind="not_found",method="vm.get"} 1`, `banger_rpc_errors_total{kind="guest",method="vm.exec"} 1`,
		`banger_rpc_streams_total{method="vm.exec"} 2`, `banger_rpc_open_streams{method="vm.exec"} 1`,
		`banger_events_total 42`, `banger_store_bytes 100`,
	} {
		if want = strings.ReplaceAll(want, "not_found", string(api.KindNotFound)); !slices.Contains(lines, want) {
			t.Errorf("no line %s", want)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
}

// scrape asks for the metrics as a monitor does.
func scrape(t *testing.T, m http.Handler) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if kind := w.Header().Get("Content-Type"); w.Code != http.StatusOK || !strings.HasPrefix(kind, "text/plain; version=0.0.4") {
		t.Fatalf("status %d, type %s\n%s", w.Code, kind, w.Body)
	}
	return w.Body.String()
}

func TestDocumentation(t *testing.T) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(scrape(t, busy(t))))
	if err != nil {
		t.Fatal(err)
	}
	var rows []string
	groups := map[string]int{}
	for name, f := range families {
		group, _, _ := strings.Cut(name, "_")
		if groups[group]++; group != "banger" {
			continue
		}
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, "`"+l.GetName()+"`")
		}
		rows = append(rows, fmt.Sprintf("| `%s` | %s | %s | %s |", name, strings.ToLower(f.GetType().String()), strings.Join(labels, ", "), f.GetHelp()))
	}
	slices.Sort(rows)
	doc, err := os.ReadFile("../../docs/METRICS.md")
	if err != nil {
		t.Fatal(err)
	}
	var documented []string
	for line := range strings.Lines(string(doc)) {
		if strings.HasPrefix(line, "| `banger_") {
			documented = append(documented, strings.TrimSpace(line))
		}
	}
	if d := cmp.Diff(rows, documented); d != "" {
		t.Errorf("docs/METRICS.md is not what is served; the rows are\n%s\n%s", strings.Join(rows, "\n"), d)
	}
	for _, group := range []string{"go", "process"} {
		if groups[group] == 0 {
			t.Errorf("no metric of group %s", group)
		}
	}
	if len(groups) != 3 {
		t.Errorf("groups %v", groups)
	}
}

func TestASourceThatFails(t *testing.T) {
	m := metrics.New("v1", metrics.Sources{
		VMs:       func(context.Context) ([]banger.VM, error) { return nil, errors.New("locked") },
		LastEvent: func(context.Context) (int64, error) { return 1, nil }, Log: slog.New(slog.DiscardHandler),
	})
	t.Run("a monitor gets the others", func(t *testing.T) {
		if text := scrape(t, m); strings.Contains(text, "banger_vms") || !strings.Contains(text, "banger_events_total 1\n") {
			t.Errorf("got\n%s", text)
		}
	})
	t.Run("who asks for the text is told", func(t *testing.T) {
		if _, err := m.Text(); err == nil || !strings.Contains(err.Error(), "locked") {
			t.Errorf("got %v", err)
		}
	})
}
