package store_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/store/storetest"
)

// BenchmarkListVMs is the store's share of `vm list` with 1,000 VMs of usual size.
func BenchmarkListVMs(b *testing.B) {
	s := storetest.New(b)
	for i := range 1000 {
		vm := newVM(banger.NewID[banger.VMID](), fmt.Sprintf("vm-%d", i), i)
		vm.Spec.HostKey = banger.Secret(strings.Repeat("x", 411)) // an Ed25519 key in OpenSSH PEM
		vm.Workspace = &banger.Workspace{GuestPath: "/root/src", Source: "/home/me/src", Branch: "main",
			BaseCommit: strings.Repeat("c", 40), BaseTree: strings.Repeat("d", 40), Prepared: epoch}
		must(b, s.CreateVM(b.Context(), vm))
	}
	for b.Loop() {
		got, err := s.ListVMs(b.Context())
		must(b, err)
		if len(got) != 1000 {
			b.Fatalf("%d VMs", len(got))
		}
	}
}

// BenchmarkUpdateVM is one durable change.
func BenchmarkUpdateVM(b *testing.B) {
	s := storetest.New(b)
	must(b, s.CreateVM(b.Context(), newVM("aaaaaaaaaaaa", "web", 0)))
	for b.Loop() {
		_, err := s.UpdateVM(b.Context(), "aaaaaaaaaaaa", func(vm *banger.VM) error { vm.LastUsed = vm.LastUsed.Add(1); return nil })
		must(b, err)
	}
}
