package vmmproc

import (
	"os"
	"testing"

	"github.com/banger-vm/banger/internal/host"
)

func TestWhatTheConsoleSays(t *testing.T) {
	for _, c := range []struct {
		name, console             string
		panic                     string
		powerOff, halted, restart bool
	}{
		{"a panic", "[    1.2] Kernel panic - not syncing: Attempted to kill init!\n[    1.3] CPU: 0", "Attempted to kill init!", false, false, false},
		{"a reboot", "[    3.1] reboot: Restarting system\n", "", false, false, true},
		{"a power-off by restart", "[    3.1] reboot: Restarting system with command 'power-off'\r\n", "", true, false, true},
		{"a halt", "bye\r\n[    3.123456] reboot: System halted\r\n", "", false, true, false},
		{"a halt for want of a power-off", "[    3.123456] reboot: Power off not available: System halted instead\n", "", false, true, false},
		{"a power-off that older kernels believe in", "[    3.1] reboot: Power down\n", "", false, true, false},
		{"a program that talks of it", "echo '[ 3.1] reboot: System halted' >/dev/null\n# reboot: System halted?\n", "", false, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := PanicIn(c.console); got != c.panic {
				t.Errorf("panic %q", got)
			}
			if got := PowerOffIn(c.console); got != c.powerOff {
				t.Errorf("power-off %v", got)
			}
			if got := HaltIn(c.console); got != c.halted {
				t.Errorf("halted %v", got)
			}
			if got := RebootIn(c.console); got != c.restart {
				t.Errorf("restart %v", got)
			}
		})
	}
}

func TestCrash(t *testing.T) {
	end := func(script string) *os.ProcessState {
		p, err := host.Detached{Argv: []string{"sh", "-c", script}, Dir: "/"}.Start()
		if err != nil {
			t.Fatal(err)
		}
		st, err := p.Wait()
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	for _, c := range []struct {
		name   string
		status *os.ProcessState
		log    string
		want   string
	}{
		{"a signal", end("kill -9 $$"), "", "vmm was killed by signal 9 (killed)"},
		{"a failure with words", end("exit 3"), "no such disk", "vmm ended with exit status 3: no such disk"},
		{"another daemon's child", nil, "", "vmm crashed or was killed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := Crash("vmm", c.status, c.log); got != c.want {
				t.Errorf("got %q", got)
			}
		})
	}
}
