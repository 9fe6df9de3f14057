package host

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Room is what a host has, and has left. Amounts are bytes.
type Room struct {
	CPUs                   int
	MemTotal, MemAvailable int64 // MemAvailable is what programs can have without swapping (proc_meminfo(5))
	DiskTotal, DiskFree    int64 // DiskFree is what the caller can have
}

// RoomOf returns the room of this host, with the file system of dir as its disk.
func RoomOf(dir string) (Room, error) {
	r := Room{CPUs: runtime.NumCPU()}
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return r, err
	}
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		var key string
		var kib int64
		if n, _ := fmt.Sscan(lines.Text(), &key, &kib); n != 2 {
			continue
		}
		switch key {
		case "MemTotal:":
			r.MemTotal = kib << 10
		case "MemAvailable:":
			r.MemAvailable = kib << 10
		}
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return r, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	r.DiskTotal, r.DiskFree = int64(st.Blocks)*st.Bsize, int64(st.Bavail)*st.Bsize
	return r, nil
}
