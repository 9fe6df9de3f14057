package vmmtest

import (
	"bufio"
	"os"
	"path/filepath"
	"testing"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/vmm"
)

// saveSentences are of drivers whose machines can be saved.
func saveSentences(d vmm.Driver) []sentence {
	if !d.Features().Snapshot {
		return nil
	}
	return []sentence{
		{"a saved machine goes on, twice at once, each with what its memory had, and neither sees the other's", func(t *testing.T, h Harness) {
			spec, saved := h.saved(t, "a word")
			var lines []*bufio.ReadWriter
			for range 2 {
				lines = append(lines, h.dial(t, startSpec(t, h, h.restored(t, spec, saved))))
			}
			wantKept(t, lines[0], "a word")
			if got, err := ask(lines[0], "keep another"); err != nil || got != "ok" {
				t.Fatalf("keep: %q, %v", got, err)
			}
			wantKept(t, lines[1], "a word")
			wantKept(t, lines[0], "another")
		}},
		{"a restored machine is adopted, powers off, and ends as any other", func(t *testing.T, h Harness) {
			spec, saved := h.saved(t, "a word")
			m := startSpec(t, h, h.restored(t, spec, saved))
			adopted, err := h.New(t).Adopt(h.patiently(t), throughJSON(t, m.Handle()))
			if err != nil {
				t.Fatal(err)
			}
			c := h.dial(t, adopted)
			wantKept(t, c, "a word")
			if err := tell(c, "power-off"); err != nil {
				t.Fatal(err)
			}
			if e := wantEnd(t, h, m); !e.Clean {
				t.Errorf("exit %+v", e)
			}
		}},
		{"a machine whose saved state is cut short does not start, and leaves nothing", func(t *testing.T, h Harness) {
			spec, saved := h.saved(t, "a word")
			st, err := os.Stat(saved.State)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(saved.State, st.Size()/2); err != nil {
				t.Fatal(err)
			}
			spec = h.restored(t, spec, saved)
			if m, err := h.New(t).Start(h.patiently(t), spec); err == nil {
				h.kill(t, m)
				t.Fatal("started from half a state")
			}
			wantNothing(t, h, spec, vmm.Handle{})
		}},
		{"a save over a file that exists is refused, and the guest goes on", func(t *testing.T, h Harness) {
			spec := h.Spec(t)
			spec.Memory = filepath.Join(spec.Dir, "memory")
			m := startSpec(t, h, spec)
			c := h.dial(t, m)
			wantEcho(t, c, "up")
			wantKind(t, m.Machine.(vmm.Saver).Save(h.patiently(t), spec.Memory), api.KindExists)
			wantEcho(t, c, "still")
		}},
	}
}

// saved makes a machine that keeps a word, and saves it. What remains are its spec and its files.
func (h Harness) saved(t *testing.T, word string) (vmm.Spec, vmm.Saved) {
	t.Helper()
	spec := h.Spec(t)
	saved := vmm.Saved{Memory: filepath.Join(spec.Dir, "memory"), State: filepath.Join(spec.Dir, "state")}
	spec.Memory = saved.Memory
	m := startSpec(t, h, spec)
	if got, err := ask(h.dial(t, m), "keep "+word); err != nil || got != "ok" {
		t.Fatalf("keep: %q, %v", got, err)
	}
	if err := m.Machine.(vmm.Saver).Save(h.patiently(t), saved.State); err != nil {
		t.Fatal(err)
	}
	h.kill(t, m)
	return spec, saved
}

// restored is the spec of another VM that goes on from what was saved of the one of spec.
func (h Harness) restored(t *testing.T, spec vmm.Spec, saved vmm.Saved) vmm.Spec {
	t.Helper()
	other := h.Spec(t)
	spec.ID, spec.Dir, spec.RunDir, spec.Memory, spec.Restore = other.ID, other.Dir, other.RunDir, "", &saved
	return spec
}

func wantKept(t *testing.T, c *bufio.ReadWriter, word string) {
	t.Helper()
	if got, err := ask(c, "kept"); err != nil || got != word {
		t.Fatalf("kept %q, %v; want %q", got, err, word)
	}
}
