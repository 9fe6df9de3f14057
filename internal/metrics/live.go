package metrics

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/banger-vm/banger/internal/banger"
)

// askTimeout bounds how long a look waits for the store.
const askTimeout = 5 * time.Second

// live asks its sources at each look.
type live struct{ Sources }

//nolint:gochecknoglobals // descriptions, which are never changed
var (
	descVMs    = prometheus.NewDesc("banger_vms", "VMs by state.", []string{"state"}, nil)
	descEvents = prometheus.NewDesc("banger_events_total", "Events since the database was made; the last one's number.", nil, nil)
	descStore  = prometheus.NewDesc("banger_store_bytes", "Size of the database, its write-ahead log included.", nil, nil)
)

// Describe implements prometheus.Collector.
func (l *live) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descVMs, descEvents, descStore} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (l *live) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
	defer cancel()
	if vms, err := l.VMs(ctx); err != nil {
		ch <- prometheus.NewInvalidMetric(descVMs, err)
	} else {
		collectVMs(ch, vms)
	}
	one := func(d *prometheus.Desc, t prometheus.ValueType, n int64, err error) {
		if err != nil {
			ch <- prometheus.NewInvalidMetric(d, err)
			return
		}
		ch <- prometheus.MustNewConstMetric(d, t, float64(n))
	}
	n, err := l.LastEvent(ctx)
	one(descEvents, prometheus.CounterValue, n, err)
	n, err = size(l.StoreFiles)
	one(descStore, prometheus.GaugeValue, n, err)
}

// collectVMs sends every state, also those that no VM is in.
func collectVMs(ch chan<- prometheus.Metric, vms []banger.VM) {
	count := map[banger.State]int{}
	for _, v := range vms {
		count[v.State]++
	}
	for s := banger.Created; s <= banger.Failed; s++ {
		ch <- prometheus.MustNewConstMetric(descVMs, prometheus.GaugeValue, float64(count[s]), s.String())
	}
}

// size adds up the sizes of files; one that is missing counts nothing.
func size(paths []string) (sum int64, err error) {
	for _, path := range paths {
		st, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("size of the database: %w", err)
		}
		sum += st.Size()
	}
	return sum, nil
}
