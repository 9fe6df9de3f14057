package facts

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/banger-vm/banger/api/guestapi"
)

// The states of a socket that waits for peers, as in /proc/net/tcp and udp (include/net/tcp_states.h): a listening TCP
// socket, and an unconnected UDP socket.
const (
	tcpListen   = "0A"
	udpUnbound  = "07"
	fieldLocal  = 1
	fieldState  = 3
	fieldInode  = 9
	socketLink  = "socket:["
	fieldsAtAll = 10
)

// Ports lists what listens in the guest, with the process that holds each socket where that can be seen.
func Ports() guestapi.Ports {
	byInode := make(map[string]int) // socket inode → index in list
	var list []guestapi.Port
	for _, network := range []string{"tcp", "tcp6", "udp", "udp6"} {
		b, _ := os.ReadFile("/proc/net/" + network)
		state := tcpListen
		if strings.HasPrefix(network, "udp") {
			state = udpUnbound
		}
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			if len(f) < fieldsAtAll || f[fieldState] != state {
				continue
			}
			addr, err := parseAddr(f[fieldLocal])
			if err != nil {
				continue
			}
			byInode[f[fieldInode]] = len(list)
			list = append(list, guestapi.Port{Network: network, Address: addr.Addr().String(), Port: int(addr.Port())})
		}
	}
	nameHolders(list, byInode)
	slices.SortStableFunc(list, func(a, b guestapi.Port) int { return a.Port - b.Port })
	return guestapi.Ports{Ports: list}
}

// parseAddr reads an address of /proc/net/tcp: 32-bit words in host byte order, in hexadecimal, a colon, the port.
func parseAddr(s string) (netip.AddrPort, error) {
	host, port, _ := strings.Cut(s, ":")
	raw, err := hex.DecodeString(host)
	if err != nil || len(raw)%4 != 0 {
		return netip.AddrPort{}, fmt.Errorf("bad address %q", s)
	}
	for i := 0; i < len(raw); i += 4 {
		binary.BigEndian.PutUint32(raw[i:], binary.NativeEndian.Uint32(raw[i:]))
	}
	ip, ok := netip.AddrFromSlice(raw)
	p, err := strconv.ParseUint(port, 16, 16)
	if !ok || err != nil {
		return netip.AddrPort{}, fmt.Errorf("bad address %q", s)
	}
	return netip.AddrPortFrom(ip.Unmap(), uint16(p)), nil
}

// nameHolders fills in the first process that holds each socket.
func nameHolders(list []guestapi.Port, byInode map[string]int) {
	for _, pid := range pids() {
		dir := "/proc/" + strconv.Itoa(pid)
		fds, err := os.Open(dir + "/fd")
		if err != nil {
			continue
		}
		names, _ := fds.Readdirnames(-1)
		fds.Close()
		for _, fd := range names {
			link, _ := os.Readlink(dir + "/fd/" + fd)
			inode, isSocket := strings.CutPrefix(link, socketLink)
			i, wanted := byInode[strings.TrimSuffix(inode, "]")]
			if !isSocket || !wanted || list[i].PID != 0 {
				continue
			}
			comm, _ := os.ReadFile(dir + "/comm")
			list[i].PID, list[i].Process = pid, strings.TrimSpace(string(comm))
		}
	}
}
