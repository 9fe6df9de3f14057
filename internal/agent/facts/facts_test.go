package facts

import (
	"errors"
	"net"
	"os"
	"sync"
	"testing"
)

func TestParseAddr(t *testing.T) {
	for in, want := range map[string]string{
		"0100007F:0016":                         "127.0.0.1:22",
		"00000000000000000000000001000000:1F90": "[::1]:8080",
		"0000000000000000FFFF00000100007F:0050": "127.0.0.1:80",
		"00000000:0000":                         "0.0.0.0:0",
		"zz:1":                                  "", "01:1": "", "0100007F": "", "0100007F:1ffff": "",
	} {
		got, err := parseAddr(in)
		if err != nil && want != "" || err == nil && got.String() != want {
			t.Errorf("%q is %v, %v, want %q", in, got, err, want)
		}
	}
}

func TestPortsNamesTheHolder(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	want := l.Addr().(*net.TCPAddr).Port
	for _, p := range Ports().Ports {
		if p.Port == want && p.Network == "tcp" {
			if p.Address != "127.0.0.1" || p.PID != os.Getpid() || p.Process == "" {
				t.Errorf("listed as %+v", p)
			}
			return
		}
	}
	t.Error("our own listener is not listed")
}

func TestStatsOfThisProcess(t *testing.T) {
	s := Stats()
	if s.AgentRSS <= 0 || s.MemTotal <= 0 || s.MemAvailable <= 0 || s.Processes < 1 || s.CPUBusyMS <= 0 || s.UptimeMS <= 0 {
		t.Errorf("a value is missing: %+v", s)
	}
}

func TestJournal(t *testing.T) {
	j := NewJournal(nil, []string{"early: bad"})
	var parts sync.WaitGroup
	for range 10 {
		parts.Go(func() { j.Phase("x"); j.Warn("w", nil) })
	}
	parts.Wait()
	j.Warn("mount", errors.New("no device"))
	phases, warnings := j.Read()
	if len(phases) != 10 || len(warnings) != 2 || warnings[1] != "mount: no device" {
		t.Errorf("%d phases, warnings %q", len(phases), warnings)
	}
}
