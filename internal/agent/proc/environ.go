package proc

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

// The PATH that login(1) and sshd of Debian give to root and to others.
const (
	rootPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	userPath = "/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games"
)

// Environ returns the environment that u's commands begin with: PATH, HOME, USER, LOGNAME, SHELL, LANG, and TERM on a
// terminal.
func (u User) Environ(tty bool) []string {
	path := userPath
	if u.UID == 0 {
		path = rootPath
	}
	env := []string{"PATH=" + path, "HOME=" + u.Home, "USER=" + u.Name, "LOGNAME=" + u.Name, "SHELL=" + u.Shell, "LANG=C.UTF-8"}
	if tty {
		env = append(env, "TERM=xterm-256color")
	}
	return env
}

// MergeEnv joins environments; of two values of one name the later wins, in the place of the first. A string that is no
// NAME=VALUE is an error of kind invalid.
func MergeEnv(layers ...[]string) ([]string, error) {
	var env []string
	at := make(map[string]int)
	for _, layer := range layers {
		for _, kv := range layer {
			name, _, ok := strings.Cut(kv, "=")
			if !ok || name == "" || strings.IndexByte(kv, 0) >= 0 {
				return nil, errkind.WithHint(errkind.New(api.KindInvalid, "bad environment variable %q", kv), "write NAME=VALUE")
			}
			if i, ok := at[name]; ok {
				env[i] = kv
				continue
			}
			at[name] = len(env)
			env = append(env, kv)
		}
	}
	return env, nil
}

// LookPath finds the program of spec as a shell would: in spec's own PATH, relative to spec's directory. The error of one that
// is missing, or no program, is as that of [Supervisor.Start].
func LookPath(spec Spec) (string, error) {
	if len(spec.Argv) == 0 || spec.Argv[0] == "" {
		return "", errkind.New(api.KindInvalid, "no command given")
	}
	name := spec.Argv[0]
	if strings.Contains(name, "/") {
		if err := checkProgram(spec.Dir, name); err != nil {
			return "", notRun(name, err)
		}
		return name, nil
	}
	found := error(fs.ErrNotExist)
	for _, dir := range filepath.SplitList(pathOf(spec.Env)) {
		path := filepath.Join(dir, name)
		if dir == "" || !filepath.IsAbs(dir) {
			path = "./" + path
		}
		err := checkProgram(spec.Dir, path)
		if err == nil {
			return path, nil
		}
		if !isMissing(err) {
			found = err
		}
	}
	return "", notRun(name, found)
}

func pathOf(env []string) string {
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			return v
		}
	}
	return rootPath
}

// checkProgram says why path, relative to dir, is no program; the kernel has the last word.
func checkProgram(dir, path string) error {
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	fi, err := os.Stat(path)
	switch {
	case err != nil:
		return err
	case fi.IsDir():
		return errkind.New(api.KindPermission, "it is a directory")
	case fi.Mode()&0o111 == 0:
		return errkind.New(api.KindPermission, "it is not executable")
	}
	return nil
}

func isMissing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

func notRun(name string, err error) error {
	if isMissing(err) {
		err = errkind.WithHint(errkind.New(api.KindNotFound, "command not found"),
			"install it in the guest, or give the program's full path")
	}
	return &ExecError{Name: name, Err: err}
}
