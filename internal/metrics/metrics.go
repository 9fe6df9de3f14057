// Package metrics counts and times what the daemon does, and shows it in the text format of Prometheus. docs/METRICS.md lists the
// names, which are a contract.
//
// What happens is told by observers, which the composition root hands to packages opstate and rpcserver; what is, is asked when
// somebody looks. Labels have few values: kinds, states, methods, stages, never names or ids. There is no global registry.
package metrics

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/common/expfmt"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/errkind"
)

// Sources are asked at each look.
type Sources struct {
	VMs        func(ctx context.Context) ([]banger.VM, error)
	LastEvent  func(ctx context.Context) (int64, error) // number of the last event
	StoreFiles []string                                 // those that are there count
	Log        *slog.Logger
}

// Metrics is a daemon's metrics. Its methods may be called concurrently. Over HTTP it shows everything in the format that the client
// prefers; what cannot be asked then is left out, and logged.
type Metrics struct {
	http.Handler
	registry  *prometheus.Registry
	operation *prometheus.HistogramVec
	stage     *prometheus.HistogramVec
	call      *prometheus.HistogramVec
	callError *prometheus.CounterVec
	stream    *prometheus.CounterVec
	open      *prometheus.GaugeVec
}

// New returns the metrics of a daemon of this version.
func New(version string, s Sources) *Metrics {
	long := []float64{.25, .5, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512}
	m := &Metrics{
		registry:  prometheus.NewRegistry(),
		operation: histogram("banger_operation_duration_seconds", "Operations that have ended, and how long they took.", long, "kind", "result"),
		stage: histogram("banger_operation_stage_duration_seconds", "Stages of operations, such as the phases of a VM's start.",
			append([]float64{.01, .05, .1}, long...), "kind", "stage"),
		call: histogram("banger_rpc_duration_seconds", "Calls that were answered, and how long that took. Streams are not among them.",
			[]float64{.001, .005, .025, .1, .5, 2.5, 10, 60}, "method"),
		callError: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "banger_rpc_errors_total", Help: "Calls and streams that ended with an error."}, []string{"method", "kind"}),
		stream: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "banger_rpc_streams_total", Help: "Streams that were begun."}, []string{"method"}),
		open: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "banger_rpc_open_streams", Help: "Streams that are open now."}, []string{"method"}),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{Name: "banger_build_info", Help: "Always 1; the labels say which daemon this is.",
		ConstLabels: prometheus.Labels{"version": version, "go_version": runtime.Version()}})
	build.Set(1)
	m.registry.MustRegister(m.operation, m.stage, m.call, m.callError, m.stream, m.open, build, &live{Sources: s},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.Handler = promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		ErrorHandling: promhttp.ContinueOnError, ErrorLog: slog.NewLogLogger(s.Log.Handler(), slog.LevelWarn),
	})
	return m
}

func histogram(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
}

// OperationEnded implements opstate.Observer.
func (m *Metrics) OperationEnded(op api.Operation) {
	m.operation.WithLabelValues(op.Kind, string(op.State)).Observe(op.Ended.Sub(op.Created).Seconds())
	for _, s := range op.Stages {
		m.stage.WithLabelValues(op.Kind, s.Name).Observe(float64(s.TookMS) / 1000)
	}
}

// CallEnded implements rpcserver.Observer.
func (m *Metrics) CallEnded(method string, took time.Duration, err error) {
	m.call.WithLabelValues(method).Observe(took.Seconds())
	m.failed(method, err)
}

// StreamBegan implements rpcserver.Observer.
func (m *Metrics) StreamBegan(method string) (ended func(error)) {
	m.stream.WithLabelValues(method).Inc()
	m.open.WithLabelValues(method).Inc()
	return func(err error) {
		m.open.WithLabelValues(method).Dec()
		m.failed(method, err)
	}
}

func (m *Metrics) failed(method string, err error) {
	if err != nil {
		m.callError.WithLabelValues(method, string(errkind.Of(err))).Inc()
	}
}

// Text returns everything in the text format of Prometheus, version 0.0.4.
func (m *Metrics) Text() (string, error) {
	families, err := m.registry.Gather()
	if err != nil {
		return "", fmt.Errorf("gather metrics: %w", err)
	}
	var b bytes.Buffer
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&b, f); err != nil {
			return "", fmt.Errorf("write metrics: %w", err)
		}
	}
	return b.String(), nil
}
