package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/banger-vm/banger/client"
)

// What [BenchmarkMany] runs.
const (
	together = 20               // VMs that are started at once
	running  = 50               // VMs that run when they are measured
	idling   = 5                // VMs that run, of all, while the daemon has nothing to do
	rest     = 20 * time.Second // how long it has nothing to do
)

// BenchmarkMany is many small VMs: a crowd of starts beside one alone, what a running guest takes, measuring all of them, and a daemon
// that has nothing to do.
func BenchmarkMany(b *testing.B) {
	c := home.dial(b)
	var names []string
	for i := range running {
		name := fmt.Sprintf("many-%d", i)
		names = append(names, name)
		home.must(b, "vm", "create", "--cold", "--name", name, "--memory", "128M")
	}
	b.Cleanup(func() {
		if _, err := home.banger(append([]string{"vm", "delete", "--force"}, names...)...); err != nil {
			b.Error(err)
		}
	})
	for b.Loop() {
		benchStarts(b, c, names[:together])
		benchStats(b, c, names)
		benchIdle(b, c, names)
	}
}

// benchStarts starts VMs one by one, stops them, and starts all at once.
func benchStarts(b *testing.B, c *client.Client, names []string) {
	var alone samples
	for _, name := range names[:idling] {
		alone = append(alone, start(b, c, name))
	}
	home.must(b, append([]string{"vm", "stop"}, names[:idling]...)...)
	crowd := make(samples, len(names))
	errs := make([]error, len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() {
			begun := time.Now()
			_, errs[i] = c.VMStart(b.Context(), name)
			crowd[i] = time.Since(begun)
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		b.Fatal(err)
	}
	what := fmt.Sprintf("one of %d starts at once", len(names))
	results.add(row{what: what + ", median; alone", value: ms(crowd.median()), beside: ms(alone.median()),
		ratio: float64(crowd.median()) / float64(alone.median())})
	results.add(row{what: what + ", 99 %; alone", value: ms(crowd.at(0.99)), beside: ms(alone.at(0.99))})
	var pss int64
	for _, name := range names {
		pss += proportional(b, c, name)
	}
	results.add(row{what: "memory of a running VM of 128 MiB (PSS)", value: fmt.Sprintf("%d MiB", pss/int64(len(names))>>20)})
}

func start(b *testing.B, c *client.Client, name string) time.Duration {
	b.Helper()
	begun := time.Now()
	if _, err := c.VMStart(b.Context(), name); err != nil {
		b.Fatal(err)
	}
	return time.Since(begun)
}

// proportional is the Pss of a VM's process, in bytes (proc_pid_smaps(5)).
func proportional(b *testing.B, c *client.Client, name string) int64 {
	b.Helper()
	vm, err := c.VMGet(b.Context(), name)
	if err != nil {
		b.Fatal(err)
	}
	rollup, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", vm.PID))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(rollup)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "Pss:" {
			kib, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				b.Fatal(err)
			}
			return kib << 10
		}
	}
	b.Fatal("no Pss in ", string(rollup))
	return 0
}

// benchStats starts the rest and measures all, by what their guests said last and by asking them.
func benchStats(b *testing.B, c *client.Client, names []string) {
	home.must(b, append([]string{"vm", "start"}, names...)...)
	what := fmt.Sprintf("stats of %d running VMs", len(names))
	results.add(within(what, stats(b, c), 50*time.Millisecond))
	asked := stats(b, c, names...)
	results.add(row{what: what + ", guests asked now", value: ms(asked.median())})
}

// stats measures how long the stats of VMs take; without names, of all that run.
func stats(b *testing.B, c *client.Client, names ...string) (s samples) {
	b.Helper()
	for range 20 {
		begun := time.Now()
		all, err := c.VMStats(b.Context(), names...)
		s = append(s, time.Since(begun))
		if err != nil {
			b.Fatal(err)
		}
		for _, st := range all {
			if st.Guest == nil {
				b.Fatalf("%s did not answer: %s", st.Name, st.GuestError)
			}
		}
	}
	return s
}

// benchIdle stops all but a few and looks at the daemon's processor time while nobody calls it.
func benchIdle(b *testing.B, c *client.Client, names []string) {
	home.must(b, append([]string{"vm", "stop"}, names[idling:]...)...)
	pid := c.Daemon().PID
	before := spent(b, pid)
	sleep(b.Context(), rest)
	used := spent(b, pid) - before
	results.add(below(fmt.Sprintf("processor of an idle daemon, %d VMs of which %d run", len(names), idling),
		100*used.Seconds()/rest.Seconds(), 0.5, "% of a core"))
	home.must(b, append([]string{"vm", "stop"}, names[:idling]...)...)
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
