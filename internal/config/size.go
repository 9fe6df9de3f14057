package config

import (
	"math"
	"regexp"
	"strconv"
	"strings"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

// Size is an amount in bytes, written as ParseSize takes it.
type Size int64

var sizeForm = regexp.MustCompile(`(?i)^([0-9]{1,18}(?:\.[0-9]{1,9})?) ?(?:([KMGT])(?:iB|B)?|B)?$`)

// ParseSize returns the bytes that s means: a number, and K, M, G or T for powers of 1024, with or without iB or B (512MiB,
// 2G, 1.5g, 4096). As for QEMU, MB is MiB. Errors are of kind invalid.
func ParseSize(s string) (int64, error) {
	bad := errkind.WithHint(errkind.New(api.KindInvalid, "bad size %q", s), "write a size as 512M, 2G or 1.5G")
	m := sizeForm.FindStringSubmatch(strings.TrimSpace(s))
	if m == nil {
		return 0, bad
	}
	unit := int64(1)
	if m[2] != "" {
		unit <<= 10 * (1 + strings.Index("KMGT", strings.ToUpper(m[2])))
	}
	if whole, err := strconv.ParseInt(m[1], 10, 64); err == nil {
		if whole > math.MaxInt64/unit {
			return 0, bad
		}
		return whole * unit, nil
	}
	f, err := strconv.ParseFloat(m[1], 64)
	if err != nil || unit == 1 || f*float64(unit) >= math.MaxInt64 {
		return 0, bad
	}
	return int64(f * float64(unit)), nil
}

// String returns the size as ParseSize takes it: in the largest unit that divides it.
func (s Size) String() string {
	n, unit := int64(s), ""
	for _, u := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if n == 0 || n%1024 != 0 {
			break
		}
		n, unit = n/1024, u
	}
	return strconv.FormatInt(n, 10) + unit
}

// UnmarshalText parses b with ParseSize.
func (s *Size) UnmarshalText(b []byte) error {
	n, err := ParseSize(string(b))
	*s = Size(n)
	return err
}

// MarshalText is String.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
