package nat

import (
	"encoding/binary"
	"errors"
	"slices"

	"github.com/banger-vm/banger/internal/hostnet/ipam"
	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// groupMark marks frames between guests of one group, with the group's number in the lower half. Hosts on which bridged frames
// pass the IP rules too (module br_netfilter, which container engines load) know by it that the frame may pass.
const (
	groupMark = 0x62670000
	markMask  = 0xffff0000
)

// chunk is how many elements one message adds to a set: an attribute has 64 KiB.
const chunk = 256

// priorityBridge is of bridge chains that see frames before br_netfilter does (NF_BR_PRI_FILTER_BRIDGED in
// linux/netfilter_bridge.h).
const priorityBridge = -200

// routed fills the table of packets that the host routes.
func (f *Filter) routed(c *nftables.Conn, t *nftables.Table, guests []Guest) error {
	outbound := &nftables.Set{Table: t, Name: "outbound", KeyType: nftables.TypeIPAddr}
	var members []nftables.SetElement
	for _, g := range guests {
		if g.NAT {
			members = append(members, nftables.SetElement{Key: g.Addr.AsSlice()})
		}
	}
	if err := addSet(c, outbound, members); err != nil {
		return err
	}
	gateway := ipam.Gateway(f.network).AsSlice()
	in, out := is(expr.MetaKeyIIFNAME, ifname(f.bridge)), is(expr.MetaKeyOIFNAME, ifname(f.bridge))
	elsewhere := isNot(expr.MetaKeyOIFNAME, ifname(f.bridge))
	mayOut := join(ipv4(), load(fieldIPSource), lookup(outbound))
	query := func(proto byte) exprs {
		return join(ipv4(), load(fieldIPTarget), equal(gateway), is(expr.MetaKeyL4PROTO, []byte{proto}), load(fieldPort), equal([]byte{0, 53}))
	}
	input := base(c, t, "input", nftables.ChainTypeFilter, nftables.ChainHookInput, 0)
	addRules(c, input, in, [][]expr.Any{
		join(established(), accept()), join(query(unix.IPPROTO_UDP), accept()), join(query(unix.IPPROTO_TCP), accept()), drop(),
	})
	forward := base(c, t, "forward", nftables.ChainTypeFilter, nftables.ChainHookForward, 0)
	addRules(c, forward, in, [][]expr.Any{
		join(out, marked(), accept()), join(out, drop()), join(mayOut, accept()), drop(),
	})
	addRules(c, forward, out, [][]expr.Any{join(established(), accept()), drop()})
	post := base(c, t, "postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, 100)
	addRules(c, post, elsewhere, [][]expr.Any{join(mayOut, exprs{&expr.Masq{}})})
	return nil
}

// bridged fills the table of frames on the bridge.
func (f *Filter) bridged(c *nftables.Conn, t *nftables.Table, guests []Guest) error {
	tap := &nftables.Set{Table: t, Name: "tap", KeyType: nftables.TypeIFName, KeyByteOrder: binaryutil.NativeEndian}
	source := &nftables.Set{Table: t, Name: "source", Concatenation: true,
		KeyType: nftables.MustConcatSetType(nftables.TypeIFName, nftables.TypeEtherAddr, nftables.TypeIPAddr)}
	group := &nftables.Set{Table: t, Name: "group", IsMap: true, KeyType: nftables.TypeIFName, DataType: nftables.TypeMark,
		KeyByteOrder: binaryutil.NativeEndian}
	member := &nftables.Set{Table: t, Name: "member", Concatenation: true,
		KeyType: nftables.MustConcatSetType(nftables.TypeMark, nftables.TypeIFName)}
	var taps, sources, groups, members []nftables.SetElement
	numbers := numberGroups(guests)
	for _, g := range guests {
		name := ifname(g.Tap)
		taps = append(taps, nftables.SetElement{Key: name})
		key := slices.Concat(name, g.MAC, []byte{0, 0}, g.Addr.AsSlice()) // parts of a key are padded to registers of 4 bytes
		sources = append(sources, nftables.SetElement{Key: key})
		if n, ok := numbers[g.Group]; ok {
			mark := binary.NativeEndian.AppendUint32(nil, groupMark|n)
			groups = append(groups, nftables.SetElement{Key: name, Val: mark})
			members = append(members, nftables.SetElement{Key: slices.Concat(mark, name)})
		}
	}
	err := errors.Join(addSet(c, tap, taps), addSet(c, source, sources), addSet(c, group, groups), addSet(c, member, members))
	if err != nil {
		return err
	}
	fromTap := join(meta(expr.MetaKeyIIFNAME), lookup(tap))
	toTap := join(meta(expr.MetaKeyOIFNAME), lookup(tap))
	pre := base(c, t, "prerouting", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, priorityBridge)
	addRules(c, pre, fromTap, [][]expr.Any{
		join(etherType(unix.ETH_P_IP), senderKey(fieldIPSource), lookup(source), accept()),
		join(etherType(unix.ETH_P_ARP), senderKey(fieldARPSender), lookup(source), accept()),
		drop(),
	})
	forward := base(c, t, "forward", nftables.ChainTypeFilter, nftables.ChainHookForward, priorityBridge)
	addRules(c, forward, fromTap, [][]expr.Any{
		{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
			&expr.Lookup{SourceRegister: 1, DestRegister: 1, IsDestRegSet: true, SetName: group.Name, SetID: group.ID},
			&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: 1}},
		join(exprs{&expr.Meta{Key: expr.MetaKeyMARK, Register: 1}, &expr.Meta{Key: expr.MetaKeyOIFNAME, Register: reg32(1)}},
			lookup(member), accept()),
		drop(),
	})
	addRules(c, forward, toTap, [][]expr.Any{drop()})
	return nil
}

// numberGroups gives each group a number from 1 on.
func numberGroups(guests []Guest) map[string]uint32 {
	numbers := map[string]uint32{}
	for _, g := range guests {
		if _, known := numbers[g.Group]; g.Group != "" && !known {
			numbers[g.Group] = uint32(len(numbers) + 1)
		}
	}
	return numbers
}

func addSet(c *nftables.Conn, s *nftables.Set, elements []nftables.SetElement) error {
	if err := c.AddSet(s, nil); err != nil {
		return err
	}
	for part := range slices.Chunk(elements, chunk) {
		if err := c.SetAddElements(s, part); err != nil {
			return err
		}
	}
	return nil
}

func base(c *nftables.Conn, t *nftables.Table, name string, typ nftables.ChainType, hook *nftables.ChainHook, priority int32) *nftables.Chain {
	policy := nftables.ChainPolicyAccept
	return c.AddChain(&nftables.Chain{Table: t, Name: name, Type: typ, Hooknum: hook, Policy: &policy,
		Priority: nftables.ChainPriorityRef(nftables.ChainPriority(priority))})
}

// addRules adds rules that begin with the same match.
func addRules(c *nftables.Conn, chain *nftables.Chain, match exprs, rules [][]expr.Any) {
	for _, r := range rules {
		c.AddRule(&nftables.Rule{Table: chain.Table, Chain: chain, Exprs: join(match, r)})
	}
}

// lookup matches when the set has what is loaded.
func lookup(s *nftables.Set) exprs {
	return exprs{&expr.Lookup{SourceRegister: 1, SetName: s.Name, SetID: s.ID}}
}
