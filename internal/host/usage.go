package host

import (
	"os"
	"time"
)

// userHZ is the unit of times in /proc/PID/stat: sysconf(_SC_CLK_TCK), 100 on every architecture Linux has today.
const userHZ = 100

// Usage is what a process has used: processor time since its start, and the memory that is resident now, in bytes.
type Usage struct {
	CPU      time.Duration
	Resident int64
}

// ProcessUsage reads fields 14, 15 and 24 of /proc/PID/stat (proc_pid_stat(5)). A pid that no process has is of kind not-found.
func ProcessUsage(pid int) (Usage, error) {
	f, err := statFields(pid)
	if err != nil {
		return Usage{}, err
	}
	var n [3]int64
	for i, field := range []int{14, 15, 24} {
		if n[i], err = f.number(field); err != nil {
			return Usage{}, err
		}
	}
	return Usage{CPU: time.Duration(n[0]+n[1]) * (time.Second / userHZ), Resident: n[2] * int64(os.Getpagesize())}, nil
}
