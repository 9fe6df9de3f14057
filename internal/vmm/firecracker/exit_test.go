package firecracker

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/banger-vm/banger/internal/host"
	"github.com/banger-vm/banger/internal/vmm"
)

// status runs a shell script to its end.
func status(t *testing.T, script string) *os.ProcessState {
	t.Helper()
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

func TestVerdict(t *testing.T) {
	const (
		panicked    = "[    1.2] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100\n[    1.3] CPU: 0"
		panicReason = "guest kernel panicked: Attempted to kill init! exitcode=0x00000100"
		restarted   = "[    1.2] reboot: Restarting system\n"
		off         = "[    1.2] reboot: Restarting system with command 'power-off'\n"
	)
	poweredOff := vmm.Exit{Reason: "guest powered off", Clean: true}
	good, bad, signaled := status(t, "exit 0"), status(t, "exit 1"), status(t, "kill -9 $$")
	for _, c := range []struct {
		name string
		in   evidence
		want vmm.Exit
	}{
		{"the agent powered off", evidence{status: good, console: off}, poweredOff},
		{"the agent powered off, of another daemon's child", evidence{console: off}, poweredOff},
		{"the agent powered off just before a kill", evidence{status: signaled, killed: true, console: off}, poweredOff},
		{"the kernel halted", evidence{halted: true, status: signaled}, poweredOff},
		{"a reboot", evidence{status: good, console: restarted}, vmm.Exit{Reason: "guest rebooted"}},
		{"a reboot of another daemon's child", evidence{console: restarted}, vmm.Exit{Reason: "guest rebooted"}},
		{"a reset without a word", evidence{status: good}, vmm.Exit{Reason: "guest rebooted"}},
		{"a panic", evidence{status: good, console: panicked}, vmm.Exit{Reason: panicReason}},
		{"a panic of another daemon's child", evidence{console: panicked}, vmm.Exit{Reason: panicReason}},
		{"our kill", evidence{killed: true, status: signaled}, vmm.Exit{Reason: "killed"}},
		{"a kill by others", evidence{status: signaled}, vmm.Exit{Reason: "firecracker was killed by signal 9 (killed)"}},
		{"a kill by others after a panic that was survived", evidence{status: signaled, console: panicked},
			vmm.Exit{Reason: "firecracker was killed by signal 9 (killed)"}},
		{"Firecracker that gives up", evidence{status: bad, log: "Received KVM_EXIT_INTERNAL_ERROR signal"},
			vmm.Exit{Reason: "firecracker ended with exit status 1: Received KVM_EXIT_INTERNAL_ERROR signal"}},
		{"another daemon's child, without a word", evidence{}, vmm.Exit{Reason: "firecracker crashed or was killed"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.in.verdict(); got != c.want {
				t.Errorf("got  %+v\nwant %+v", got, c.want)
			}
		})
	}
}

func TestOnChange(t *testing.T) {
	path := filepath.Join(t.TempDir(), "console")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	t.Run("looks at once, and after a change", func(t *testing.T) {
		looked, ended := make(chan int), make(chan error)
		go func() {
			n := 0
			ended <- onChange(path, nil, func() bool {
				n++
				looked <- n
				return n < 2
			})
		}()
		<-looked
		if _, err := f.WriteString("x"); err != nil {
			t.Fatal(err)
		}
		if n := <-looked; n != 2 {
			t.Errorf("looked %d times", n)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Run("ends with what it watches for", func(t *testing.T) {
		done, ended := make(chan struct{}), make(chan error, 1)
		go func() { ended <- onChange(path, done, func() bool { return true }) }()
		close(done)
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(time.Minute):
			t.Error("it does not end")
		}
	})
	t.Run("says that there is no file", func(t *testing.T) {
		if err := onChange(path+"-none", nil, func() bool { return false }); err == nil {
			t.Error("no error")
		}
	})
}
