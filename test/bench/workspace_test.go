package bench

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The repository that is carried: as many files and bytes as a large program has.
const (
	repoFiles = 10_000
	repoBytes = 200 << 20
)

// BenchmarkWorkspace carries a repository into a guest (`vm workspace prepare`), beside a plain copy of the same files
// (`cp`: vm.copy-in, one tar stream over the same channel). The copy is the fair floor, and not a tar that the guest drops:
// it too has to make every file in the guest. Both are whole commands into a fresh VM.
func BenchmarkWorkspace(b *testing.B) {
	repo, plain := filepath.Join(home.scratch, "repo"), filepath.Join(home.scratch, "plain")
	writeTree(b, repo)
	writeTree(b, plain)
	for _, args := range [][]string{{"init", "-q", "-b", "main"}, {"add", "."}, {"-c", "user.name=b", "-c", "user.email=b@example.org", "commit", "-q", "-m", "all"}} {
		cmd := exec.Command("git", args...)
		cmd.Dir = repo
		if out, err := cmd.CombinedOutput(); err != nil {
			b.Fatalf("git %q: %v\n%s", args, err, out)
		}
	}
	var prepares, copies samples
	for b.Loop() {
		for i := range 3 {
			name := fmt.Sprintf("work%d", i)
			home.must(b, "vm", "create", "--start", "--cold", "--name", name)
			carry := func() {
				prepares = append(prepares, home.timed(b, "vm", "workspace", "prepare", name, repo, "--guest-path", "/root/repo"))
			}
			if i%2 == 0 { // the second into a guest finds less free memory
				carry()
			}
			copies = append(copies, home.timed(b, "cp", plain, name+":/root/plain"))
			if i%2 != 0 {
				carry()
			}
			home.must(b, "vm", "delete", "--force", name)
		}
	}
	b.Logf("workspaces took %v, plain copies %v", prepares, copies)
	ratio := copies.ratio(prepares) // of speeds
	results.add(row{what: fmt.Sprintf("workspace of %d files, %d MiB; plain copy", repoFiles, repoBytes>>20), value: speed(prepares), beside: speed(copies),
		ratio: ratio, target: ">= 0.7", met: ratio >= 0.7})
	b.ReportMetric(ratio, "ratio")
}

func speed(s samples) string {
	return fmt.Sprintf("%.1f MB/s", repoBytes/1e6/(float64(s.median())/float64(time.Second)))
}

// writeTree writes files of text that compresses as source code does, about four to one; every call writes the same.
func writeTree(b *testing.B, dir string) {
	b.Helper()
	random := rand.New(rand.NewPCG(1, 2))
	words := make([]string, 4096)
	for i := range words {
		words[i] = strings.Repeat(string(rune('a'+random.IntN(26))), 1+random.IntN(3)) + fmt.Sprintf("%x", random.IntN(1<<16))
	}
	const perDir = 100
	for i := range repoFiles {
		sub := filepath.Join(dir, fmt.Sprintf("dir%d", i/perDir))
		if err := os.MkdirAll(sub, 0o755); err != nil {
			b.Fatal(err)
		}
		var text strings.Builder
		for text.Len() < repoBytes/repoFiles {
			text.WriteString(words[random.IntN(len(words))])
			text.WriteByte(" \n"[random.IntN(2)])
		}
		if err := os.WriteFile(filepath.Join(sub, fmt.Sprintf("file%d.txt", i)), []byte(text.String()), 0o644); err != nil {
			b.Fatal(err)
		}
	}
}
