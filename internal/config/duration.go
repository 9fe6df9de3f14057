package config

import (
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

// Duration is a length of time, written as time.ParseDuration takes it.
type Duration time.Duration

// ParseDuration returns the length of time that s means, such as 90s, 30m or 1h30m; 0 needs no unit. One below zero and
// anything else is an error of kind invalid.
func ParseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, errkind.WithHint(errkind.New(api.KindInvalid, "bad duration %q", s), "write a duration as 90s, 30m or 12h")
	}
	return d, nil
}

// String returns the duration as ParseDuration takes it.
func (d Duration) String() string {
	if d == 0 {
		return "0"
	}
	return time.Duration(d).String()
}

// UnmarshalText parses b with ParseDuration.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := ParseDuration(string(b))
	*d = Duration(v)
	return err
}

// MarshalText is String.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }
