package vm_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
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

// writeToTemplate writes to a file of the only template, unseen: its time stays.
func (h *house) writeToTemplate(name string) {
	h.t.Helper()
	found, err := filepath.Glob(filepath.Join(h.dir, "templates", "*", name))
	if err != nil || len(found) != 1 {
		h.t.Fatalf("%s of templates: %q, %v", name, found, err)
	}
	st, err := os.Stat(found[0])
	if err != nil {
		h.t.Fatal(err)
	}
	f, err := os.OpenFile(found[0], os.O_WRONLY, 0)
	if err != nil {
		h.t.Fatal(err)
	}
	_, err = f.WriteString("written")
	if err := errors.Join(err, f.Close(), os.Chtimes(found[0], st.ModTime(), st.ModTime())); err != nil {
		h.t.Fatal(err)
	}
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
	t.Run("nothing of a template is on the disks of a VM that it did not start", func(t *testing.T) {
		h := newHouse(t)
		if done := h.template(api.TemplateBuild{}); done.Error != nil {
			t.Fatal(done.Error)
		}
		h.writeToTemplate("root.raw")
		for _, warm := range []bool{true, false} {
			h.refuses.Store(!warm)
			v := h.must(h.create(api.VMCreate{Start: true}))
			got, err := os.ReadFile(filepath.Join(dirs(h.dir).VMDir(v.ID), "root.raw"))
			if err != nil || v.Start.Warm != warm || bytes.Contains(got, []byte("written")) != warm {
				t.Errorf("started %+v, want warm %v; its disk begins with %q, %v", v.Start, warm, got[:min(7, len(got))], err)
			}
		}
	})
	t.Run("a start that fails when its guest is awake is no fault of the template's", func(t *testing.T) {
		h := newHouse(t)
		if done := h.template(api.TemplateBuild{}); done.Error != nil {
			t.Fatal(done.Error)
		}
		h.restart("ports.attach=error")
		_, err := h.create(running)
		if err == nil || strings.Count(err.Error(), "failpoint ports.attach") != 1 || h.became.Load() == nil {
			t.Errorf("the guest became %v: %v", h.became.Load(), err)
		}
		if all, err := h.templates.List(); err != nil || len(all) != 1 {
			t.Errorf("templates %+v, %v", all, err)
		}
		h.empty()
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
