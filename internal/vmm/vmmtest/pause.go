package vmmtest

import (
	"testing"
	"time"

	"github.com/banger-vm/banger/internal/vmm"
)

// pauseSentences are of drivers whose machines can be paused.
func pauseSentences(d vmm.Driver) []sentence {
	if !d.Features().Pause {
		return nil
	}
	return []sentence{
		{"a paused machine answers when it is resumed, and not before; both may be repeated, and by another daemon", func(t *testing.T, h Harness) {
			m := start(t, h)
			c := h.dial(t, m)
			wantEcho(t, c, "up")
			pauser := m.Machine.(vmm.Pauser)
			for range 2 {
				if err := pauser.Pause(h.patiently(t)); err != nil {
					t.Fatal(err)
				}
			}
			answered := make(chan error, 1)
			go func() {
				_, err := ask(c, "echo late")
				answered <- err
			}()
			select {
			case err := <-answered:
				t.Fatalf("a paused machine answers: %v", err)
			case <-time.After(100 * time.Millisecond): // a tenth of what it takes is enough to catch a machine that runs
			}
			for range 2 {
				if err := pauser.Resume(h.patiently(t)); err != nil {
					t.Fatal(err)
				}
			}
			if err := <-answered; err != nil {
				t.Fatal(err)
			}
		}},
		{"a paused machine can be killed", func(t *testing.T, h Harness) {
			m := start(t, h)
			wantEcho(t, h.dial(t, m), "up")
			if err := m.Machine.(vmm.Pauser).Pause(h.patiently(t)); err != nil {
				t.Fatal(err)
			}
			h.kill(t, m)
			wantEnd(t, h, m)
		}},
	}
}
