package vmm

import "testing"

func TestBootArgs(t *testing.T) {
	const common = "console=ttyS0 reboot=t panic=-1 quiet cryptomgr.notests=1"
	for _, c := range []struct {
		name string
		in   BootFacts
		want string
	}{
		{"under KVM the guest keeps its mitigations", BootFacts{Accel: AccelKVM, Console: "ttyS0"}, common},
		{"a known TSC rate is told", BootFacts{Accel: AccelTCG, Console: "ttyS0", TSCKHz: 2300000}, common + " tsc_early_khz=2300000 mitigations=off"},
		{"an unknown TSC rate is not made up", BootFacts{Accel: AccelTCG, Console: "ttyS0"}, common + " mitigations=off"},
		{"a machine that is reset by its keyboard controller, without PCI", BootFacts{Accel: AccelKVM, Console: "ttyS0", ResetByKeyboard: true, NoPCI: true},
			"console=ttyS0 reboot=k panic=-1 quiet cryptomgr.notests=1 i8042.noaux i8042.nomux i8042.dumbkbd pci=off"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := BootArgs(c.in); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}
