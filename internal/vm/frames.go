package vm

import (
	"encoding/json"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/frame"
	"github.com/banger-vm/banger/internal/errkind"
)

// exitError returns the failure that an exit frame's payload reports, or nil.
func exitError(payload []byte) error {
	var st frame.ExitStatus
	if err := json.Unmarshal(payload, &st); err != nil {
		return errkind.New(api.KindGuest, "bad exit frame: %w", err)
	}
	if st.Code == 0 {
		return nil
	}
	return errkind.New(api.KindGuest, "the guest reports: %s (status %d)", st.Error, st.Code)
}
