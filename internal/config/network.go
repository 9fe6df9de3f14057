package config

import (
	"net/netip"
	"regexp"
	"strconv"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

// maxTapPool is far above what starts at once use up.
const maxTapPool = 256

var link = regexp.MustCompile(`^[a-z][a-z0-9-]{0,14}$`)

func linkName(text string) error {
	if !link.MatchString(text) {
		return errkind.New(api.KindInvalid, "%q is no name of a link: 1 to 15 lower-case letters, digits and hyphens, a letter first", text)
	}
	return nil
}

func autoOrNetwork(text string) error {
	p, err := netip.ParsePrefix(text)
	if text != "auto" && (err != nil || !p.Addr().Is4() || p.Bits() < 8 || p.Bits() > 30 || p != p.Masked()) {
		return errkind.WithHint(errkind.New(api.KindInvalid, "%q is no network for guests", text),
			"write auto, or an IPv4 network with a length of 8 to 30, such as 10.209.0.0/16")
	}
	return nil
}

func poolSize(text string) error {
	if n, err := strconv.Atoi(text); err != nil || n < 0 || n > maxTapPool {
		return errkind.New(api.KindInvalid, "%s is not from 0 to %d", text, maxTapPool)
	}
	return nil
}

func emptyOrAddrPort(text string) error {
	if a, err := netip.ParseAddrPort(text); text != "" && (err != nil || !a.Addr().Is4() || a.Port() == 0) {
		return errkind.WithHint(errkind.New(api.KindInvalid, "%q is no address and port", text), "write it as 127.0.0.1:42069")
	}
	return nil
}
