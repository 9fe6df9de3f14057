package facts

import (
	"bufio"
	"bytes"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/agent/mounts"
)

// userHZ is the unit of times in /proc/stat: sysconf(_SC_CLK_TCK), 100 on every architecture Linux has today.
const userHZ = 100

// Stats reads what the guest uses from /proc (proc(5)) and from its file systems. What cannot be read stays zero.
func Stats() guestapi.Stats {
	s := guestapi.Stats{UptimeMS: SinceBoot().Milliseconds()}
	if f := fields("/proc/loadavg"); len(f) >= 4 {
		s.Load1, _ = strconv.ParseFloat(f[0], 64)
	}
	if f := fields("/proc/self/statm"); len(f) >= 2 {
		s.AgentRSS = number(f[1]) * int64(os.Getpagesize())
	}
	s.CPUBusyMS = cpuBusy()
	s.MemTotal, s.MemAvailable = memory()
	s.Processes = len(pids())
	s.NetRx, s.NetTx = traffic()
	s.Disks = disks()
	return s
}

func fields(path string) []string {
	b, _ := os.ReadFile(path)
	return strings.Fields(string(b))
}

func number(s string) int64 {
	n, _ := strconv.ParseInt(s, 10, 64)
	return n
}

// cpuBusy sums the first line of /proc/stat without idle and iowait, in milliseconds.
func cpuBusy() int64 {
	b, _ := os.ReadFile("/proc/stat")
	line, _, _ := bytes.Cut(b, []byte("\n"))
	f := strings.Fields(string(line))
	var ticks int64
	for i := 1; i < len(f) && i <= 8; i++ { // guest time, from the ninth on, is part of user time
		if i != 4 && i != 5 {
			ticks += number(f[i])
		}
	}
	return ticks * 1000 / userHZ
}

func memory() (total, available int64) {
	b, _ := os.ReadFile("/proc/meminfo")
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		switch {
		case len(f) < 2:
		case f[0] == "MemTotal:":
			total = number(f[1]) << 10
		case f[0] == "MemAvailable:":
			available = number(f[1]) << 10
		}
	}
	return total, available
}

// traffic sums /proc/net/dev without the loopback interface.
func traffic() (rx, tx int64) {
	b, _ := os.ReadFile("/proc/net/dev")
	sc := bufio.NewScanner(bytes.NewReader(b))
	for sc.Scan() {
		name, rest, ok := strings.Cut(sc.Text(), ":")
		f := strings.Fields(rest)
		if !ok || len(f) < 9 || strings.TrimSpace(name) == "lo" {
			continue
		}
		rx += number(f[0])
		tx += number(f[8])
	}
	return rx, tx
}

// pids lists the processes by their directories in /proc.
func pids() []int {
	d, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer d.Close()
	names, _ := d.Readdirnames(-1)
	var list []int
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			list = append(list, pid)
		}
	}
	return list
}

func disks() []guestapi.DiskUse {
	table, _ := mounts.Table()
	var list []guestapi.DiskUse
	seen := make(map[string]bool)
	for _, m := range table {
		var fs unix.Statfs_t
		if !m.OnDisk() || seen[m.Device] || unix.Statfs(m.Target, &fs) != nil {
			continue
		}
		seen[m.Device] = true
		size := int64(fs.Blocks) * fs.Bsize
		list = append(list, guestapi.DiskUse{
			Target: m.Target, Size: size, Used: size - int64(fs.Bfree)*fs.Bsize, ReadOnly: fs.Flags&unix.ST_RDONLY != 0,
		})
	}
	return list
}
