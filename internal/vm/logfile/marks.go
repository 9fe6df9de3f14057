package logfile

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// MarkEvery is how often the lengths of logs are noted, where they have changed.
const MarkEvery = 5 * time.Second

// maxMarks bounds a file of marks, in bytes. A full one loses its older half.
const maxMarks = 64 << 10

// MarksFile is the path of the marks of the log at path.
func MarksFile(path string) string { return path + ".times" }

// Marks notes the lengths of logs. The zero value is ready; it is for one goroutine.
type Marks struct {
	sizes map[string]int64 // by path, as noted last
}

// Note notes the present length of the log at path, if it is another than noted last. A log that became shorter was begun anew,
// and so are its marks.
func (m *Marks) Note(path string, now time.Time) error {
	st, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	before, known := m.sizes[path]
	if known && st.Size() == before {
		return nil
	}
	if m.sizes == nil {
		m.sizes = map[string]int64{}
	}
	m.sizes[path] = st.Size()
	if known && st.Size() < before {
		if err := Forget(path); err != nil {
			return err
		}
	}
	return appendMark(MarksFile(path), fmt.Sprintf("%d %d\n", now.UnixMilli(), st.Size()))
}

// Keep forgets what is remembered of logs for which wanted is false. Their files stay.
func (m *Marks) Keep(wanted func(path string) bool) {
	for path := range m.sizes {
		if !wanted(path) {
			delete(m.sizes, path)
		}
	}
}

// Forget removes the marks of the log at path, which is begun anew.
func Forget(path string) error {
	if err := os.Remove(MarksFile(path)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func appendMark(path, line string) error {
	if st, err := os.Stat(path); err == nil && st.Size() > maxMarks {
		if err := halve(path); err != nil {
			return err
		}
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(line)
	return errors.Join(err, f.Close())
}

// halve drops the older half of a file of marks.
func halve(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	_, rest, _ := strings.Cut(string(b[len(b)/2:]), "\n")
	return os.WriteFile(path, []byte(rest), 0o600)
}

// offsetAt returns how long the log at path was at a moment, or a little before. Without a mark before it, that is nothing.
func offsetAt(path string, moment time.Time) (int64, error) {
	f, err := os.Open(MarksFile(path))
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var offset int64
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var ms, size int64
		if n, err := fmt.Sscan(lines.Text(), &ms, &size); n != 2 || err != nil {
			continue // cut by a crash
		}
		if ms > moment.UnixMilli() {
			break
		}
		offset = size
	}
	return offset, nil
}
