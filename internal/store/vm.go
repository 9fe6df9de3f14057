package store

import (
	"context"
	"database/sql"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/hostnet/ipam"
)

var vms = table[banger.VM]{
	name: "vm", noun: "VM", list: "banger vm list", extra: ", image_id, kernel_id, address",
	row: func(v banger.VM) record {
		return record{id: string(v.ID), name: v.Name, created: v.Created,
			extra: []any{orNull(v.Spec.ImageID), orNull(v.Spec.KernelID), orNull(addressText(v.Address))}}
	},
}

// addressText is an address as the column has it; none is empty.
func addressText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// address gives a VM the address that its network entitles it to: the one it has, or the lowest that is free.
func address(ctx context.Context, tx *sql.Tx, vm *banger.VM) error {
	if !vm.Network.IsValid() {
		vm.Address = netip.Addr{}
		return nil
	}
	if vm.Network.Contains(vm.Address) {
		return nil
	}
	texts, err := names(ctx, tx, "SELECT address FROM vm WHERE address IS NOT NULL")
	if err != nil {
		return err
	}
	var taken []netip.Addr
	for _, s := range texts {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return errkind.New(api.KindDataLoss, "address of a VM: %w", err)
		}
		taken = append(taken, a)
	}
	slices.SortFunc(taken, netip.Addr.Compare)
	vm.Address, err = ipam.Next(vm.Network, taken)
	return err
}

// orNull makes an empty id NULL, which refers to nothing.
func orNull[ID ~string](id ID) any {
	if id == "" {
		return nil
	}
	return string(id)
}

// CreateVM stores a new VM. A name or id that is taken is of kind exists; an image or kernel id that no record has is of
// kind not-found.
func (s *Store) CreateVM(ctx context.Context, vm banger.VM) error {
	return s.writes(ctx, func(tx *sql.Tx) ([]api.Event, error) {
		if err := address(ctx, tx, &vm); err != nil {
			return nil, fmt.Errorf("store VM %q: %w", vm.Name, err)
		}
		return []api.Event{vmEvent(api.EventVMCreated, vm)}, vms.insert(ctx, tx, vm)
	})
}

// GetVM returns the VM that ref means: its name, its id, or a prefix that only its id has; a name wins. Kinds: not-found,
// and invalid for an ambiguous prefix, whose message lists the candidates.
func (s *Store) GetVM(ctx context.Context, ref string) (banger.VM, error) {
	return vms.get(ctx, s.read, ref)
}

// ListVMs returns all VMs, oldest first.
func (s *Store) ListVMs(ctx context.Context) ([]banger.VM, error) {
	return vms.all(ctx, s.read, "ORDER BY created, rowid")
}

// UpdateVM changes the VM with the exact id in one transaction and returns it as it is then. An error from fn changes
// nothing and is returned as it is. A state that may not follow the one before ([banger.State.CanBecome]) is an error of
// kind internal. fn must not call the store.
func (s *Store) UpdateVM(ctx context.Context, id banger.VMID, fn func(*banger.VM) error) (banger.VM, error) {
	var vm banger.VM
	err := s.writes(ctx, func(tx *sql.Tx) (events []api.Event, err error) {
		vm, err = vms.update(ctx, tx, string(id), func(vm *banger.VM) error {
			before := *vm
			if err := fn(vm); err != nil {
				return err
			}
			if err := address(ctx, tx, vm); err != nil {
				return fmt.Errorf("update VM %q: %w", vm.Name, err)
			}
			if vm.State != before.State && !before.State.CanBecome(vm.State) {
				return errkind.New(api.KindInternal, "VM %q cannot go from %s to %s", vm.Name, before.State, vm.State)
			}
			events = vmEvents(before, *vm)
			return nil
		})
		return events, err
	})
	if err != nil {
		return banger.VM{}, mapError(ctx, err)
	}
	return vm, nil
}

func vmEvent(t api.EventType, vm banger.VM) api.Event {
	return api.Event{Type: t, ID: string(vm.ID), Name: vm.Name, State: vm.State.String()}
}

// vmEvents tells what is different between a VM before and after.
func vmEvents(before, after banger.VM) []api.Event {
	var events []api.Event
	if before.State != after.State {
		e := vmEvent(api.EventVMState, after)
		e.Before = before.State.String()
		if after.LastError != before.LastError {
			e.Message = after.LastError
		}
		events = append(events, e)
	}
	if !reflect.DeepEqual(before.Spec, after.Spec) {
		events = append(events, vmEvent(api.EventVMChanged, after))
	}
	if !slices.EqualFunc(before.Conditions, after.Conditions, sameCondition) {
		e := vmEvent(api.EventVMCondition, after)
		for _, c := range after.Conditions {
			e.Message = strings.TrimPrefix(e.Message+"; "+c.Type+": "+c.Message, "; ")
		}
		events = append(events, e)
	}
	if !reflect.DeepEqual(before.Workspace, after.Workspace) {
		events = append(events, vmEvent(api.EventVMWorkspace, after))
	}
	return events
}

func sameCondition(a, b banger.Condition) bool { return a.Type == b.Type && a.Message == b.Message }

// DeleteVM forgets the VM with the exact id. One that is not there is no error.
func (s *Store) DeleteVM(ctx context.Context, id banger.VMID) error {
	return s.writes(ctx, func(tx *sql.Tx) ([]api.Event, error) {
		vm, found, err := vms.delete(ctx, tx, string(id))
		if !found {
			return nil, err
		}
		return []api.Event{vmEvent(api.EventVMDeleted, vm)}, nil
	})
}

// VMsUsingImage returns the names of the VMs that were made from the image, sorted.
func (s *Store) VMsUsingImage(ctx context.Context, id banger.ImageID) ([]string, error) {
	return names(ctx, s.read, "SELECT name FROM vm WHERE image_id = ? ORDER BY name", string(id))
}

// VMsUsingKernel returns the names of the VMs that boot the kernel, sorted.
func (s *Store) VMsUsingKernel(ctx context.Context, id banger.KernelID) ([]string, error) {
	return names(ctx, s.read, "SELECT name FROM vm WHERE kernel_id = ? ORDER BY name", string(id))
}
