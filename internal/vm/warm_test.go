package vm_test

import (
	"strings"
	"testing"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/opstate"
)

// template makes a template, and returns what came of it.
func (h *house) template(p api.TemplateBuild) api.Operation {
	h.t.Helper()
	op, err := h.vms.BeginTemplate(p)
	if err != nil {
		h.t.Fatal(err)
	}
	done, err := h.ops.Wait(h.t.Context(), op.ID)
	if err != nil {
		h.t.Fatal(err)
	}
	return done
}

func TestWarmStarts(t *testing.T) {
	t.Run("a VM begins with a template when it is started first, and boots from then on", func(t *testing.T) {
		h := newHouse(t)
		if done := h.template(api.TemplateBuild{}); done.Error != nil {
			t.Fatal(done.Error)
		}
		if v := h.must(h.create(running)); !v.Start.Warm || v.Start.Why != "" || h.became.Load() != string(v.ID) {
			t.Errorf("started %+v, the guest became %v", v.Start, h.became.Load())
		}
		h.must(h.vms.Stop(t.Context(), "web", 0, opstate.Discard))
		if v := h.must(h.vms.Start(t.Context(), "web", opstate.Discard)); v.Start.Warm || v.Start.Why != "its disks have been used" {
			t.Errorf("started %+v", v.Start)
		}
	})
	t.Run("a VM that its template does not start boots, and the template goes", func(t *testing.T) {
		h := newHouse(t)
		if done := h.template(api.TemplateBuild{}); done.Error != nil {
			t.Fatal(done.Error)
		}
		h.refuses.Store(true)
		if v := h.must(h.create(running)); v.Start.Warm || !strings.Contains(v.Start.Why, "not today") {
			t.Errorf("started %+v", v.Start)
		}
		if all, err := h.templates.List(); err != nil || len(all) > 0 {
			t.Errorf("templates %+v, %v", all, err)
		}
		h.must(h.vms.Stop(t.Context(), "web", 0, opstate.Discard))
	})
	t.Run("VMs that differ have no template in common", func(t *testing.T) {
		h := newHouse(t)
		if done := h.template(api.TemplateBuild{MemMiB: 512}); done.Error != nil {
			t.Fatal(done.Error)
		}
		if v := h.must(h.create(running)); v.Start.Warm || v.Start.Why != "there is no template yet" {
			t.Errorf("started %+v", v.Start)
		}
		if v := h.must(h.create(api.VMCreate{Name: "large", MemMiB: 512, Start: true})); !v.Start.Warm {
			t.Errorf("started %+v", v.Start)
		}
	})
	t.Run("a template that cannot be made leaves nothing", func(t *testing.T) {
		h := newHouse(t)
		h.restart("template.saved=error")
		if done := h.template(api.TemplateBuild{}); done.Error == nil || !strings.Contains(done.Error.Message, "make a template") {
			t.Errorf("got %+v", done)
		}
		if all, err := h.templates.List(); err != nil || len(all) > 0 {
			t.Errorf("templates %+v, %v", all, err)
		}
		h.empty()
	})
	t.Run("an id that is none is refused", func(t *testing.T) {
		h := newHouse(t)
		for id, kind := range map[string]errkind.Kind{"": api.KindInvalid, "../vms": api.KindInvalid, "making-x": api.KindInvalid, "0123456789ab": api.KindNotFound} {
			if err := h.templates.Remove(id); !errkind.Is(err, kind) {
				t.Errorf("%q: %v", id, err)
			}
		}
	})
}
