package guestnet

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// rtnl speaks rtnetlink(7) with the kernel: a request, an acknowledgement.
type rtnl struct {
	fd  int
	seq uint32
}

func openRTNL() (*rtnl, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	// An acknowledgement is sent before send(2) returns; the timeout is for the kernel that does not.
	tv := unix.Timeval{Sec: 2}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return &rtnl{fd: fd}, nil
}

func (r *rtnl) close() { unix.Close(r.fd) }

// do sends one request: type, flags, the fixed part of the body, attributes. It returns the kernel's verdict.
func (r *rtnl) do(kind, flags uint16, body []byte, attrs ...attr) error {
	r.seq++
	ne := binary.NativeEndian
	msg := make([]byte, unix.SizeofNlMsghdr, 128)
	ne.PutUint16(msg[4:], kind)
	ne.PutUint16(msg[6:], flags|unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	ne.PutUint32(msg[8:], r.seq)
	msg = append(msg, body...)
	for _, a := range attrs {
		msg = a.append(msg)
	}
	ne.PutUint32(msg, uint32(len(msg)))
	if err := unix.Sendto(r.fd, msg, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	buf := make([]byte, 4096)
	n, _, err := unix.Recvfrom(r.fd, buf, 0)
	if err != nil {
		return err
	}
	if n < unix.SizeofNlMsghdr+4 || ne.Uint16(buf[4:]) != unix.NLMSG_ERROR || ne.Uint32(buf[8:]) != r.seq {
		return fmt.Errorf("rtnetlink: unexpected answer of %d bytes", n)
	}
	if errno := -int32(ne.Uint32(buf[unix.SizeofNlMsghdr:])); errno != 0 {
		return syscall.Errno(errno)
	}
	return nil
}

// attr is a route attribute: type and value.
type attr struct {
	kind  uint16
	value []byte
}

func attr32(kind uint16, v uint32) attr {
	return attr{kind, binary.NativeEndian.AppendUint32(nil, v)}
}

// append adds a in its wire form, padded to four bytes.
func (a attr) append(msg []byte) []byte {
	msg = binary.NativeEndian.AppendUint16(msg, uint16(unix.SizeofRtAttr+len(a.value)))
	msg = binary.NativeEndian.AppendUint16(msg, a.kind)
	msg = append(msg, a.value...)
	for len(msg)%4 != 0 {
		msg = append(msg, 0)
	}
	return msg
}

func family(ip netip.Addr) byte {
	if ip.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// setUp brings the link up (struct ifinfomsg), with an MTU unless that is 0.
func (r *rtnl) setUp(index, mtu int) error {
	ne := binary.NativeEndian
	body := make([]byte, unix.SizeofIfInfomsg)
	ne.PutUint32(body[4:], uint32(index))
	ne.PutUint32(body[8:], unix.IFF_UP)
	ne.PutUint32(body[12:], unix.IFF_UP)
	var attrs []attr
	if mtu > 0 {
		attrs = append(attrs, attr32(unix.IFLA_MTU, uint32(mtu)))
	}
	return r.do(unix.RTM_NEWLINK, 0, body, attrs...)
}

// setMAC gives the link another hardware address.
func (r *rtnl) setMAC(index int, mac []byte) error {
	body := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(body[4:], uint32(index))
	return r.do(unix.RTM_NEWLINK, 0, body, attr{unix.IFLA_ADDRESS, mac})
}

// addAddress gives the link an address (struct ifaddrmsg). An IPv6 address is usable at once: nobody else can have it.
func (r *rtnl) addAddress(index int, p netip.Prefix) error {
	ip := p.Addr()
	body := []byte{family(ip), byte(p.Bits()), unix.IFA_F_PERMANENT, unix.RT_SCOPE_UNIVERSE}
	if ip.Is6() {
		body[2] |= unix.IFA_F_NODAD
	}
	body = binary.NativeEndian.AppendUint32(body, uint32(index))
	attrs := []attr{{unix.IFA_LOCAL, ip.AsSlice()}, {unix.IFA_ADDRESS, ip.AsSlice()}}
	if ip.Is4() && p.Bits() < 31 {
		attrs = append(attrs, attr{unix.IFA_BROADCAST, broadcast(p)})
	}
	return r.do(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, body, attrs...)
}

func broadcast(p netip.Prefix) []byte {
	b := p.Addr().AsSlice()
	v := binary.BigEndian.Uint32(b) | (1<<(32-p.Bits()) - 1)
	binary.BigEndian.PutUint32(b, v)
	return b
}

// addDefault routes everything to gateway through the link (struct rtmsg).
func (r *rtnl) addDefault(index int, gateway netip.Addr) error {
	body := []byte{family(gateway), 0, 0, 0, unix.RT_TABLE_MAIN, unix.RTPROT_BOOT, unix.RT_SCOPE_UNIVERSE, unix.RTN_UNICAST, 0, 0, 0, 0}
	return r.do(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, body,
		attr{unix.RTA_GATEWAY, gateway.AsSlice()}, attr32(unix.RTA_OIF, uint32(index)))
}
