package bench

import (
	"bytes"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/client"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/store"
)

// BenchmarkVersion is the least that a command costs.
func BenchmarkVersion(b *testing.B) {
	var s samples
	for b.Loop() {
		for range 100 {
			s = append(s, home.timed(b, "version"))
		}
	}
	results.add(within("banger version", s, 15*time.Millisecond))
}

// crowd is how many VMs the store of [BenchmarkCrowd] has.
const crowd = 1000

// BenchmarkCrowd is `vm list` and the daemon's memory with a thousand stored VMs.
func BenchmarkCrowd(b *testing.B) {
	h, err := newHouse(filepath.Join(home.scratch, "crowd"), home.scratch)
	if err != nil {
		b.Fatal(err)
	}
	fill(b, h)
	h.must(b, "daemon", "start")
	defer h.close()
	var s samples
	for b.Loop() {
		for range 50 {
			begun := time.Now()
			out := h.must(b, "vm", "list")
			s = append(s, time.Since(begun))
			if lines := bytes.Count([]byte(out), []byte("\n")); lines != crowd { // the heading's line is one more
				b.Fatalf("vm list printed %d VMs", lines)
			}
		}
	}
	results.add(within(fmt.Sprintf("vm list with %d VMs", crowd), s, 30*time.Millisecond))
	rss, err := residentMiB(h.dial(b).Daemon().PID)
	if err != nil {
		b.Fatal(err)
	}
	results.add(below(fmt.Sprintf("the daemon's memory with %d VMs", crowd), rss, 60, "MiB"))
}

func fill(b *testing.B, h *house) {
	b.Helper()
	if err := h.paths.Make(); err != nil {
		b.Fatal(err)
	}
	db, err := store.Open(b.Context(), h.paths.DB())
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	begun := time.Now().UTC()
	for i := range crowd {
		vm := banger.VM{
			ID: banger.NewID[banger.VMID](), Name: fmt.Sprintf("vm-%d", i), State: banger.Stopped, Created: begun, Started: begun,
			Stopped: begun, LastUsed: begun, Spec: banger.Spec{Image: "debian", Kernel: "debian-cloud", VMM: "auto",
				Init: guestapi.InitAgent, VCPU: 1, MemMiB: 1024, RootSize: 8 << 30, WorkSize: 8 << 30,
				HostKey: banger.Secret(bytes.Repeat([]byte{'k'}, 411))}, // as long as an Ed25519 key in PEM
		}
		if err := db.CreateVM(b.Context(), vm); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkExec is a whole `banger exec VM -- true`, beside the same command over a client that is kept, and beside a bare
// question to the agent.
func BenchmarkExec(b *testing.B) {
	home.startVM(b, "exec")
	c := home.dial(b)
	var cli, kept, hello samples
	for b.Loop() {
		for range 200 {
			cli = append(cli, home.timed(b, "exec", "exec", "--", "true"))
			begun := time.Now()
			execTrue(b, c, "exec")
			kept = append(kept, time.Since(begun))
			begun = time.Now()
			if _, err := c.VMHealth(b.Context(), "exec"); err != nil {
				b.Fatal(err)
			}
			hello = append(hello, time.Since(begun))
		}
	}
	results.add(row{what: "exec VM -- true, median; over a kept client", value: ms(cli.median()), beside: ms(kept.median()), ratio: cli.ratio(kept)})
	results.add(row{what: "exec VM -- true, 99 %; over a kept client", value: ms(cli.at(0.99)), beside: ms(kept.at(0.99))})
	results.add(row{what: "two questions to the agent (vm.health), median", value: ms(hello.median())})
	b.ReportMetric(float64(cli.at(0.99))/float64(time.Millisecond), "p99-ms")
}

func execTrue(b *testing.B, c *client.Client, vm string) {
	b.Helper()
	p, err := c.VMExec(b.Context(), api.VMExec{Ref: api.Ref{Ref: vm}, ExecSpec: guestapi.ExecSpec{Argv: []string{"true"}}}, client.Stdio{})
	if err != nil {
		b.Fatal(err)
	}
	if st, err := p.Wait(); err != nil || st.Code != 0 {
		b.Fatalf("true ended with %+v, %v", st, err)
	}
}
