package store_test

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/store/storetest"
)

func TestAddresses(t *testing.T) {
	ctx := t.Context()
	network := netip.MustParsePrefix("10.0.0.0/29") // room for five guests
	in := func(id banger.VMID, name string) banger.VM {
		vm := newVM(id, name, 0)
		vm.Network = network
		return vm
	}
	t.Run("twenty creations at once get the five addresses of a network once each, and the rest an error", func(t *testing.T) {
		s := storetest.New(t)
		errs := make([]error, 20)
		var wg sync.WaitGroup
		for i := range errs {
			wg.Go(func() { errs[i] = s.CreateVM(ctx, in(banger.NewID[banger.VMID](), fmt.Sprintf("vm%d", i))) })
		}
		wg.Wait()
		vms, err := s.ListVMs(ctx)
		must(t, err)
		var got []string
		for _, vm := range vms {
			got = append(got, vm.Address.String())
		}
		slices.Sort(got)
		if want := []string{"10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"}; !slices.Equal(got, want) {
			t.Errorf("addresses %v", got)
		}
		for _, err := range errs {
			if err != nil {
				wantKind(t, err, api.KindUnavailable, "10.0.0.0/29", "network.cidr")
			}
		}
	})
	t.Run("an address stays with its VM, and is free when the VM is gone", func(t *testing.T) {
		s := storetest.New(t)
		must(t, s.CreateVM(ctx, in("aaaaaaaaaaaa", "a")))
		must(t, s.CreateVM(ctx, in("bbbbbbbbbbbb", "b")))
		b, err := s.UpdateVM(ctx, "bbbbbbbbbbbb", func(v *banger.VM) error { v.Name = "c"; return nil })
		must(t, err)
		if b.Address.String() != "10.0.0.3" {
			t.Errorf("address %s", b.Address)
		}
		must(t, s.DeleteVM(ctx, "aaaaaaaaaaaa"))
		must(t, s.CreateVM(ctx, in("dddddddddddd", "d")))
		d, err := s.GetVM(ctx, "d")
		must(t, err)
		if d.Address.String() != "10.0.0.2" {
			t.Errorf("address %s", d.Address)
		}
	})
	t.Run("a VM that changes its network, or leaves it, changes its address", func(t *testing.T) {
		s := storetest.New(t)
		must(t, s.CreateVM(ctx, newVM("aaaaaaaaaaaa", "a", 0)))
		for _, tt := range []struct {
			network netip.Prefix
			want    string
		}{{network, "10.0.0.2"}, {netip.MustParsePrefix("10.1.0.0/16"), "10.1.0.2"}, {netip.Prefix{}, "invalid IP"}} {
			vm, err := s.UpdateVM(ctx, "aaaaaaaaaaaa", func(v *banger.VM) error { v.Network = tt.network; return nil })
			must(t, err)
			if vm.Address.String() != tt.want {
				t.Errorf("in %s: address %s, want %s", tt.network, vm.Address, tt.want)
			}
		}
	})
}
