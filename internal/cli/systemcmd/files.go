package systemcmd

import (
	"embed"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

//go:embed files
var embedded embed.FS

// File is a file that is installed.
type File struct {
	Path string // absolute, in the file system that is installed to
	Mode os.FileMode
	Data []byte
}

// Share is where man pages and completions go.
const Share = "/usr/local/share"

const (
	bin      = "/usr/local/bin" // the unit names it, too
	unit     = "bangerd.service"
	unitPath = "/etc/systemd/system/" + unit
	sysusers = "/etc/sysusers.d/banger.conf"
	tmpfiles = "/etc/tmpfiles.d/banger.conf"
)

// programs returns the three programs, from beside the one that runs.
func programs(executable string) ([]File, error) {
	var out []File
	for _, name := range []string{"banger", "bangerd", "banger-agent"} {
		from := filepath.Join(filepath.Dir(executable), name)
		data, err := os.ReadFile(from)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, errkind.WithHint(errkind.New(api.KindPrecondition, "there is no %s to install", from),
				"run the banger that lies beside bangerd and banger-agent, as `make` puts them into bin")
		}
		if err != nil {
			return nil, err
		}
		out = append(out, File{filepath.Join(bin, name), 0o755, data})
	}
	return out, nil
}

// units returns what systemd reads.
func units() ([]File, error) {
	var out []File
	for _, f := range []struct{ path, source string }{
		{unitPath, "files/bangerd.service"}, {sysusers, "files/sysusers.conf"}, {tmpfiles, "files/tmpfiles.conf"},
	} {
		data, err := embedded.ReadFile(f.source)
		if err != nil {
			return nil, err
		}
		out = append(out, File{f.path, 0o644, data})
	}
	return out, nil
}
