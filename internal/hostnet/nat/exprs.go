package nat

import (
	"encoding/binary"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// exprs is a part of a rule: matches work on register 1, where the one before them loaded something.
type exprs = []expr.Any

// field is a place in a packet.
type field struct {
	base        expr.PayloadBase
	offset, len uint32
}

var (
	fieldEtherSource = field{expr.PayloadBaseLLHeader, 6, 6}
	fieldIPSource    = field{expr.PayloadBaseNetworkHeader, 12, 4}  // RFC 791
	fieldIPTarget    = field{expr.PayloadBaseNetworkHeader, 16, 4}  // RFC 791
	fieldARPSender   = field{expr.PayloadBaseNetworkHeader, 14, 4}  // RFC 826, with addresses of Ethernet and IPv4
	fieldPort        = field{expr.PayloadBaseTransportHeader, 2, 2} // of the destination: RFC 768, RFC 9293
)

// reg32 is the n-th 4-byte register, counted from the first (enum nft_registers of linux/netfilter/nf_tables.h). The 16-byte
// register 1 is the first four of them.
func reg32(n uint32) uint32 { return unix.NFT_REG32_00 + n }

func join(parts ...exprs) exprs {
	var all exprs
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

func meta(key expr.MetaKey) exprs { return exprs{&expr.Meta{Key: key, Register: 1}} }

func load(f field) exprs {
	return exprs{&expr.Payload{DestRegister: 1, Base: f.base, Offset: f.offset, Len: f.len}}
}

func equal(data []byte) exprs { return exprs{&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data}} }

func is(key expr.MetaKey, data []byte) exprs { return join(meta(key), equal(data)) }

func isNot(key expr.MetaKey, data []byte) exprs {
	return join(meta(key), exprs{&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: data}})
}

func ipv4() exprs { return is(expr.MetaKeyNFPROTO, []byte{unix.NFPROTO_IPV4}) }

func etherType(t uint16) exprs {
	return is(expr.MetaKeyPROTOCOL, binary.BigEndian.AppendUint16(nil, t))
}

// senderKey loads who sent a frame: tap, hardware address, and the IP address in f.
func senderKey(f field) exprs {
	e := fieldEtherSource
	return exprs{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
		&expr.Payload{DestRegister: reg32(4), Base: e.base, Offset: e.offset, Len: e.len},
		&expr.Payload{DestRegister: reg32(6), Base: f.base, Offset: f.offset, Len: f.len},
	}
}

// established matches packets of connections that the conntrack knows, and those that belong to them.
func established() exprs {
	states := binary.NativeEndian.AppendUint32(nil, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED)
	return exprs{
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: states, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
}

// marked matches frames between guests of one group.
func marked() exprs {
	return exprs{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binary.NativeEndian.AppendUint32(nil, markMask), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binary.NativeEndian.AppendUint32(nil, groupMark)},
	}
}

func accept() exprs { return exprs{&expr.Verdict{Kind: expr.VerdictAccept}} }
func drop() exprs   { return exprs{&expr.Verdict{Kind: expr.VerdictDrop}} }
