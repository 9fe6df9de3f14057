package app

import (
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

// Moment is the time that text means: that long ago, a time of today, or a day and a time; zone is the caller's unless it is given.
func Moment(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	for _, clock := range []string{"15:04", time.TimeOnly} {
		if t, err := time.ParseInLocation(clock, text, now.Location()); err == nil {
			y, m, d := now.Date()
			return time.Date(y, m, d, t.Hour(), t.Minute(), t.Second(), 0, now.Location()), nil
		}
	}
	for _, form := range []string{time.DateOnly, "2006-01-02 15:04", time.DateTime, time.RFC3339} {
		if t, err := time.ParseInLocation(form, text, now.Location()); err == nil {
			return t, nil
		}
	}
	return time.Time{}, errkind.WithHint(errkind.New(api.KindInvalid, "bad time %q", text),
		"write 10m for the last ten minutes, or a time as 14:30, 2026-01-31 14:30 or 2026-01-31T14:30:00Z")
}
