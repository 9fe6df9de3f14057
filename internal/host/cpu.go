package host

import (
	"os"
	"regexp"
)

var modelName = regexp.MustCompile(`(?m)^model name\s*:\s*(.*\S)`)

// CPUModel returns the name of the host's processor (proc_cpuinfo(5)); empty where it is not told.
func CPUModel() string {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	if m := modelName.FindSubmatch(b); m != nil {
		return string(m[1])
	}
	return ""
}
