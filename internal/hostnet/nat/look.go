package nat

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/google/nftables"
)

// Look returns which tables of a bridge are missing, and which chains of others drop forwarded packets that they do not know: a
// packet must pass every table.
func Look(bridge string) (missing, foreign []string, err error) {
	c, err := nftables.New()
	if err != nil {
		return nil, nil, fmt.Errorf("look at the packet filter: %w", err)
	}
	chains, err := c.ListChains()
	if err != nil {
		return nil, nil, fmt.Errorf("look at the packet filter: %w", err)
	}
	name := Table(bridge)
	missing = []string{"inet " + name, "bridge " + name}
	for _, chain := range chains {
		switch t := chain.Table; {
		case t.Name == name && t.Family == nftables.TableFamilyINet:
			missing = slices.DeleteFunc(missing, func(s string) bool { return strings.HasPrefix(s, "inet ") })
		case t.Name == name && t.Family == nftables.TableFamilyBridge:
			missing = slices.DeleteFunc(missing, func(s string) bool { return strings.HasPrefix(s, "bridge ") })
		case dropsForwarded(chain):
			foreign = append(foreign, t.Name+" "+chain.Name)
		}
	}
	return missing, foreign, nil
}

func dropsForwarded(c *nftables.Chain) bool {
	f := c.Table.Family
	return (f == nftables.TableFamilyINet || f == nftables.TableFamilyIPv4) && c.Hooknum != nil && *c.Hooknum == *nftables.ChainHookForward &&
		c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop
}

// Forwarding reports whether the host forwards IPv4 packets.
func Forwarding() bool {
	now, err := os.ReadFile(forwardSwitch)
	return err == nil && strings.TrimSpace(string(now)) == "1"
}
