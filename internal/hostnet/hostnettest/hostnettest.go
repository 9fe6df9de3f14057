// Package hostnettest runs tests of the host's network in a network namespace of their own, and shows what is in it as text.
package hostnettest

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
)

// inside says, in the environment, that a process has a network namespace of its own.
const inside = "BANGER_TEST_NETNS"

var update = flag.Bool("update", false, "write the golden files anew")

// Main runs the tests of a package in a new network namespace with only loopback in it, where this process may make one, and as
// it is elsewhere. Use it in TestMain.
func Main(m *testing.M) {
	if os.Getenv(inside) != "" || os.Geteuid() != 0 {
		os.Exit(m.Run())
	}
	self, err := os.Executable()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	err = cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		os.Exit(exit.ExitCode())
	case err != nil:
		fmt.Fprintln(os.Stderr, "new network namespace:", err)
		os.Exit(1)
	}
}

// Own makes sure that the test may change the network, or skips it, and that the test leaves nothing behind.
func Own(t testing.TB) {
	t.Helper()
	if os.Getenv(inside) == "" {
		t.Skip("needs root, for a network namespace of its own")
	}
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("needs nft (package nftables), to show rules")
	}
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		t.Fatal(err)
	}
	before := Show(t)
	t.Cleanup(func() {
		if d := cmp.Diff(before, Show(t)); d != "" {
			t.Errorf("the test left behind:\n%s", d)
		}
	})
}

// Golden compares what is in the namespace with testdata/NAME.txt, which -update writes.
func Golden(t testing.TB, name string) {
	t.Helper()
	path := filepath.Join("testdata", name+".txt")
	got := Show(t)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s (want -, got +):\n%s", path, d)
	}
}

// Show returns links, addresses, routes, neighbors, forwarding and packet filter as text.
func Show(t testing.TB) string {
	t.Helper()
	var b strings.Builder
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	names := map[int]string{}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	var lines []string
	for _, l := range links {
		lines = append(lines, showLink(t, l, names)...)
	}
	slices.Sort(lines)
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range routes {
		lines = append(lines, fmt.Sprintf("route %v dev %s", r.Dst, names[r.LinkIndex]))
	}
	forward, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward")
	if err != nil {
		t.Fatal(err)
	}
	lines = append(lines, "ip_forward "+strings.TrimSpace(string(forward)))
	fmt.Fprintln(&b, strings.Join(lines, "\n"))
	b.WriteString(rules(t))
	return b.String()
}

func showLink(t testing.TB, l netlink.Link, names map[int]string) []string {
	a := l.Attrs()
	line := "link " + Anonymous(a.Name) + " " + l.Type()
	if a.Flags&1 != 0 { // IFF_UP
		line += " up"
	}
	if a.Alias != "" {
		line += fmt.Sprintf(" alias %q", a.Alias)
	}
	if a.MasterIndex != 0 {
		line += " master " + names[a.MasterIndex]
		if p, err := netlink.LinkGetProtinfo(l); err == nil && p.Isolated {
			line += " isolated"
		}
	}
	lines := []string{line}
	addrs, err := netlink.AddrList(l, netlink.FAMILY_ALL)
	if err != nil {
		t.Fatal(err)
	}
	for _, addr := range addrs {
		if addr.IP.To4() != nil || !addr.IP.IsLinkLocalUnicast() {
			lines = append(lines, fmt.Sprintf("address %s dev %s", addr.IPNet, a.Name))
		}
	}
	neighbors, err := netlink.NeighList(a.Index, netlink.FAMILY_V4)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range neighbors {
		if n.State == netlink.NUD_PERMANENT {
			lines = append(lines, fmt.Sprintf("neighbor %s dev %s %s", n.IP, a.Name, n.HardwareAddr))
		}
	}
	return lines
}

var idle = regexp.MustCompile(`^bgi-[0-9a-f]{8}$`)

// Anonymous replaces the random part of an idle tap's name.
func Anonymous(name string) string {
	if idle.MatchString(name) {
		return "bgi-*"
	}
	return name
}

var elements = regexp.MustCompile(`(?s)elements = \{(.*?)\}`)

// rules returns the packet filter as nft(8) shows it, with the elements of sets sorted, one a line.
func rules(t testing.TB) string {
	t.Helper()
	out, err := exec.Command("nft", "list", "ruleset").CombinedOutput()
	if err != nil {
		t.Fatalf("nft list ruleset: %v\n%s", err, out)
	}
	return elements.ReplaceAllStringFunc(string(out), func(s string) string {
		var items []string
		for item := range strings.SplitSeq(elements.FindStringSubmatch(s)[1], ",") {
			items = append(items, strings.TrimSpace(item))
		}
		slices.Sort(items)
		return "elements = {\n\t\t\t" + strings.Join(items, ",\n\t\t\t") + "\n\t\t}"
	})
}
