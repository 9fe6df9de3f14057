package rpcserver

import (
	"errors"
	"fmt"
	"net"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Caller is who is at the other end of a connection, as the kernel remembers it from the time of connect(2) (unix(7)).
type Caller struct {
	UID    uint32
	Groups []uint32 // the effective one first, then the supplementary ones
}

func callerOf(conn *net.UnixConn) (Caller, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return Caller{}, err
	}
	var c Caller
	var credErr error
	err = raw.Control(func(fd uintptr) {
		var cred *unix.Ucred
		if cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); credErr != nil {
			return
		}
		var more []uint32
		more, credErr = callerGroups(fd)
		c = Caller{UID: cred.Uid, Groups: append([]uint32{cred.Gid}, more...)}
	})
	return c, errors.Join(err, credErr)
}

// callerGroups returns the supplementary groups (SO_PEERGROUPS, Linux 4.13). x/sys/unix has no call for an option of this shape.
func callerGroups(fd uintptr) ([]uint32, error) {
	groups := make([]uint32, 32)
	for {
		size := uint32(len(groups)) * 4
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case errno == 0:
			return groups[:size/4], nil
		case errno == unix.ERANGE && int(size/4) > len(groups): // size is what it takes
			groups = make([]uint32, size/4)
		default:
			return nil, fmt.Errorf("ask for the caller's groups: %w", errno)
		}
	}
}
