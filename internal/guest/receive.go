package guest

import (
	"encoding/json"
	"io"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/frame"
	"github.com/banger-vm/banger/internal/errkind"
)

// Receive copies the stdout frames of r to w until the exit frame, whose failure it returns, of kind guest.
func Receive(w io.Writer, r io.Reader) error {
	frames := frame.NewReader(r)
	for {
		t, p, err := frames.Next()
		switch {
		case err == io.EOF:
			return io.ErrUnexpectedEOF
		case err != nil:
			return err
		case t == frame.Stdout:
			if _, err := w.Write(p); err != nil {
				return err
			}
		case t == frame.Exit:
			return exitError(p)
		}
	}
}

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
