package bench

import (
	"fmt"
	"sync"
	"testing"
	"time"
)

// What [BenchmarkWarm] runs.
const (
	warmRuns = 50
	coldRuns = 10 // as many of each, in turn with a floor
	clones   = 20
)

// BenchmarkWarm is `banger run --rm -- true` that begins with a template, beside one that boots and beside the floor of
// [BenchmarkRun]; and many clones at once, with what each takes of the host.
func BenchmarkWarm(b *testing.B) {
	c := home.dial(b)
	for b.Loop() {
		home.must(b, "template", "build", "--quiet")
		floor := newFloor(b)
		run := func(flags ...string) time.Duration {
			return home.timed(b, append(append([]string{"run", "--rm", "--no-workspace", "--quiet"}, flags...), "--", "true")...)
		}
		var warm, cold, floors, some samples
		for range coldRuns {
			wall, _ := floor.time(b)
			floors, some, cold = append(floors, wall), append(some, run()), append(cold, run("--cold"))
		}
		mark := home.logMark(b)
		for range warmRuns {
			warm = append(warm, run())
		}
		ratio := some.ratio(floors)
		results.add(row{what: "run --rm -- true, warm; QEMU, kernel, power off", value: ms(some.median()), beside: ms(floors.median()),
			ratio: ratio, target: "<= 1.25", met: ratio <= 1.25})
		results.add(row{what: "the same; cold", value: ms(some.median()), beside: ms(cold.median()), ratio: some.ratio(cold),
			target: "<= 0.125", met: some.ratio(cold) <= 0.125})
		results.add(within(fmt.Sprintf("run --rm -- true, warm, median of %d", warmRuns), warm, 350*time.Millisecond))
		results.add(row{what: fmt.Sprintf("run --rm -- true, warm, 99 %% of %d", warmRuns), value: ms(warm.at(0.99))})
		log := home.logSince(b, mark)
		results.add(row{what: "restore of a machine", value: ms(samples(took(b, log, `step=machine.attach`)).median())})
		results.add(row{what: "a restored guest becomes a VM", value: ms(samples(took(b, log, `step=agent.attach`)).median())})
		all, err := c.TemplateList(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		results.add(row{what: "a template of 1 GiB, on disk", value: fmt.Sprintf("%d MiB", all[len(all)-1].Size>>20)})
		benchClones(b)
	}
}

// benchClones starts many VMs from one template at once, and runs a command in each.
func benchClones(b *testing.B) {
	const memory = 256 << 20
	c := home.dial(b)
	home.must(b, "template", "build", "--quiet", "--memory", "256M")
	names := make([]string, clones)
	each := make(samples, clones)
	var all sync.WaitGroup
	for i := range names {
		names[i] = fmt.Sprintf("clone-%d", i)
		all.Go(func() {
			begun := time.Now()
			if _, err := home.banger("vm", "create", "--start", "--quiet", "--name", names[i], "--memory", "256M"); err != nil {
				b.Error(err)
			}
			each[i] = time.Since(begun)
		})
	}
	all.Wait()
	defer home.must(b, append([]string{"vm", "delete", "--force"}, names...)...)
	results.add(row{what: fmt.Sprintf("one of %d clones at once, median; 99 %%", clones), value: ms(each.median()), beside: ms(each.at(0.99))})
	var pss int64
	for _, name := range names {
		home.must(b, "exec", name, "--", "true")
	}
	for _, name := range names {
		pss += proportional(b, c, name)
	}
	share := 100 * float64(pss) / float64(clones*memory)
	results.add(below("memory of a clone of 256 MiB after a command (PSS)", share, 40, "% of 256 MiB"))
}
