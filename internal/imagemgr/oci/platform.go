package oci

import (
	"runtime"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

// platformOf reads OS/ARCH[/VARIANT]. VMs run what the host's processor runs, so another architecture is refused.
func platformOf(text string) (v1.Platform, error) {
	here := v1.Platform{OS: "linux", Architecture: runtime.GOARCH}
	if text == "" {
		return here, nil
	}
	p, err := v1.ParsePlatform(text)
	if err != nil {
		return here, errkind.WithHint(errkind.New(api.KindInvalid, "bad platform %q", text), "write it as linux/amd64")
	}
	if p.OS != here.OS || p.Architecture != here.Architecture {
		return here, errkind.New(api.KindInvalid, "VMs here run %s, not %s", here.String(), p.String())
	}
	return *p, nil
}
