package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// BenchmarkSize is what the agent takes: of the disk, and of the memory of a guest that has little.
func BenchmarkSize(b *testing.B) {
	st, err := os.Stat(filepath.Join(home.bin, "banger-agent"))
	if err != nil {
		b.Fatal(err)
	}
	results.add(below("the agent's file", float64(st.Size())/(1<<20), 9, "MiB"))
	const least = 128 // MiB
	home.startVM(b, "small", "--memory", fmt.Sprintf("%dM", least))
	home.must(b, "exec", "small", "--", "true")
	health, err := home.dial(b).VMHealth(b.Context(), "small")
	if err != nil {
		b.Fatal(err)
	}
	results.add(below(fmt.Sprintf("the agent's memory in a guest of %d MiB", least), float64(health.Stats.AgentRSS)/(1<<20), 20, "MiB"))
	results.add(row{what: fmt.Sprintf("memory that is free in a guest of %d MiB", least),
		value: fmt.Sprintf("%d MiB", health.Stats.MemAvailable>>20), beside: fmt.Sprintf("%d MiB in all", health.Stats.MemTotal>>20)})
}
