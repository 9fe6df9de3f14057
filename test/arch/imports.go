package arch

import (
	"fmt"
	"slices"
	"strings"
)

// importRule is one row of the table of imports.
type importRule struct {
	name   string
	from   []string // the packages it binds
	except []string // of those
	only   []string // of the module's packages they import none but these; nil is any
	std    bool     // they import nothing of other modules
	never  []string // what they do not import, of any module
	but    []string // of those, what they may
	deep   bool     // nor does anything they import
}

// The groups of DESIGN.md, section 13. Imports go from the first to the last.
var (
	mains      = []string{"cmd/banger", "cmd/bangerd", "cmd/banger-agent"}
	transports = []string{"internal/rpcserver/...", "internal/web/..."}
	services   = []string{"internal/vm/...", "internal/imagemgr/...", "internal/kernels/...", "internal/workspace/...",
		"internal/session/...", "internal/doctor/...", "internal/metrics"}
	contracts = []string{"internal/vm/capability", "internal/vmm", "internal/disk", "internal/guest", "internal/opstate",
		"internal/preflight"}
	drivers  = []string{"internal/vmm/qemu/...", "internal/vmm/firecracker/...", "internal/vmm/vmmproc", "internal/store/..."}
	adapters = append([]string{"internal/disk/...", "internal/hostnet/...", "internal/initramfs/...", "internal/kernels/bzimage",
		"internal/kernels/kmod", "internal/vm/vmlock", "internal/workspace/gitcmd"}, drivers...)
	ground = []string{"api/...", "internal/errkind", "internal/banger", "internal/failpoint", "internal/config", "internal/host",
		"internal/namelock", "internal/lockorder"}
	guest  = []string{"internal/agent/...", "cmd/banger-agent"}
	client = []string{"internal/cli/...", "cmd/banger"}
)

// importRules returns the table.
func importRules() []importRule {
	rules := []importRule{
		{name: "the wire contract needs the standard library only", from: []string{"api/..."}, only: []string{"api/..."}, std: true},
		{name: "the public client needs the wire contract only", from: []string{"client/..."}, only: []string{"api/...", "client/..."}},
		{name: "the ground stands on nothing above it", from: ground, only: ground},
		{name: "the agent has nothing of the host", from: guest,
			only: []string{"api/...", "internal/agent/...", "internal/banger", "internal/errkind"}},
		{name: "the agent is small", from: guest, never: []string{"net/http", "github.com/creachadair/jrpc2/..."}, deep: true},
		{name: "the host has nothing of the agent", from: []string{"client/...", "internal/...", "cmd/banger", "cmd/bangerd"},
			except: guest, never: []string{"internal/agent/..."}},
		{name: "the CLI works through the daemon", from: client, deep: true, never: slices.Concat(
			[]string{"internal/daemon/...", "internal/capabilities/...", "internal/vm/...", "internal/imagemgr/...",
				"internal/kernels/...", "internal/doctor/...", "internal/session/...", "modernc.org/sqlite"}, transports, drivers)},
		{name: "only main and tests start at the composition root", from: []string{"api/...", "client/...", "internal/..."},
			except: []string{"internal/daemon/..."}, never: []string{"internal/daemon/..."}},
		{name: "transports are wired by the composition root", from: []string{"internal/..."},
			except: append([]string{"internal/daemon/..."}, transports...), never: transports},
		{name: "transports know services, not stores and drivers", from: transports, never: drivers},
		{name: "nothing but main imports the CLI", from: []string{"client/...", "internal/...", "cmd/bangerd", "cmd/banger-agent"},
			except: []string{"internal/cli/..."}, never: []string{"internal/cli/..."}},
		{name: "services take stores and drivers as interfaces", from: append([]string{"internal/capabilities/..."}, services...), never: drivers},
		{name: "contracts know contracts and the ground", from: contracts, only: append(slices.Clone(contracts), ground...)},
		{name: "adapters serve, and do not call, services", from: adapters, except: contracts,
			only: slices.Concat(adapters, contracts, ground)},
		{name: "programs are started by internal/host, and internal/agent/proc in the guest",
			from: []string{"api/...", "client/...", "internal/...", "cmd/..."}, except: []string{"internal/host", "internal/agent/proc"},
			never: []string{"os/exec"}},
	}
	below := slices.Concat(adapters, contracts) // some have their place in a service's folder
	for i, s := range services {
		rules = append(rules, importRule{name: "services do not import each other", from: []string{s}, except: below,
			never: slices.Delete(slices.Clone(services), i, i+1), but: below})
	}
	return rules
}

// CheckImports holds the packages against the table of imports. A package that no group has is a finding too, so that the
// table stays complete.
func CheckImports(packages []Package) []Finding {
	var out []Finding
	placed := slices.Concat(mains, transports, services, contracts, adapters, ground, guest, client,
		[]string{"client/...", "internal/daemon/...", "internal/capabilities/..."})
	for _, p := range packages {
		if testSupport(p.Path) {
			continue
		}
		if !match(placed, p.Path) {
			out = append(out, Finding{p.Path, "every package has a place", "add it to a group in test/arch/imports.go"})
		}
		for _, target := range p.Imports {
			if target == "testing" || own(target) && testSupport(target) {
				out = append(out, Finding{p.Path, "what is shipped imports no test code", "imports " + target})
			}
		}
		for _, r := range importRules() {
			if match(r.from, p.Path) && !match(r.except, p.Path) {
				out = append(out, r.check(p)...)
			}
		}
	}
	return out
}

// own reports whether an import is of the module.
func own(target string) bool {
	return match([]string{"api/...", "client/...", "internal/...", "cmd/...", "test/..."}, target)
}

func (r importRule) check(p Package) []Finding {
	var out []Finding
	for _, target := range p.Imports {
		switch {
		case r.only != nil && own(target) && !match(r.only, target),
			r.std && !own(target) && strings.Contains(strings.Split(target, "/")[0], "."),
			r.forbids(target):
			out = append(out, Finding{p.Path, r.name, fmt.Sprintf("imports %s", target)})
		}
	}
	if !r.deep {
		return out
	}
	for _, target := range p.Deps {
		if r.forbids(target) && !slices.Contains(p.Imports, target) {
			out = append(out, Finding{p.Path, r.name, fmt.Sprintf("imports %s through another package", target)})
		}
	}
	return out
}

func (r importRule) forbids(target string) bool {
	return match(r.never, target) && !match(r.but, target)
}
