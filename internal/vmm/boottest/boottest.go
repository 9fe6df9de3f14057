// Package boottest makes small guests for tests: an initramfs whose /init is a Go program of the test's own.
package boottest

import (
	"path/filepath"
	"testing"

	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/host"
	"github.com/banger-vm/banger/internal/initramfs"
)

// Initrd builds the main package in the directory source, and returns the path of an initramfs that starts it with k's boot
// modules and cfg in /vm.json.
func Initrd(t testing.TB, k banger.Kernel, source string, cfg guestapi.BootConfig) string {
	t.Helper()
	dir := t.TempDir()
	program, initrd := filepath.Join(dir, "init"), filepath.Join(dir, "initrd")
	err := host.Run(t.Context(), host.Command{
		Argv: []string{"go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, "./" + source}, Env: []string{"CGO_ENABLED=0", "GOFLAGS="},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := initramfs.New(dir, program).Build(t.Context(), initrd, k.OnPCI(), cfg); err != nil {
		t.Fatal(err)
	}
	return initrd
}
