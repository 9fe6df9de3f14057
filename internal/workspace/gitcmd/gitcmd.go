// Package gitcmd runs the system's git on the user's repository, and never changes it.
//
// A [Git] is a directory to run in plus settings; it is a value, and With and Set return changed copies. Every command
// runs without hooks, file system monitor, pager, prompts, colours, automatic maintenance, lazy fetches and any other use
// of the network, with messages in English, and without the locks that git takes only to save what it has just learnt
// (GIT_OPTIONAL_LOCKS). What a caller's own environment says about a repository (GIT_DIR and its kin, set in a hook or a
// rebase) is taken away.
//
// What a command writes goes where the caller's settings send it: an index of its own (GIT_INDEX_FILE) and an object
// directory of its own (GIT_OBJECT_DIRECTORY). [Scratch] makes both.
package gitcmd

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/banger-vm/banger/internal/host"
)

// Git is git in one directory.
type Git struct {
	dir    string
	env    []string
	config []string
}

// At returns git that runs in dir.
func At(dir string) Git { return Git{dir: dir} }

// With returns g with more environment variables, NAME=VALUE.
func (g Git) With(env ...string) Git {
	g.env = append(slices.Clip(g.env), env...)
	return g
}

// Set returns g with more configuration, KEY=VALUE, which wins over the user's.
func (g Git) Set(config ...string) Git {
	g.config = append(slices.Clip(g.config), config...)
	return g
}

// fixed is the configuration of every command.
var fixed = []string{
	"core.hooksPath=/dev/null", "core.fsmonitor=false", "core.untrackedCache=false", "core.splitIndex=false",
	"core.safecrlf=false", "core.commitGraph=false", "index.skipHash=false", "protocol.allow=never", "gc.auto=0",
	"maintenance.auto=false", "submodule.recurse=false", "color.ui=false",
}

// environment is added to the caller's.
var environment = []string{
	"LC_ALL=C", "GIT_OPTIONAL_LOCKS=0", "GIT_TERMINAL_PROMPT=0", "GIT_ASKPASS=/bin/false", "SSH_ASKPASS=/bin/false",
	"GIT_NO_REPLACE_OBJECTS=1", "GIT_NO_LAZY_FETCH=1", "GIT_LFS_SKIP_SMUDGE=1", "GIT_LITERAL_PATHSPECS=1",
}

// foreign are the variables that point git at a repository (`git rev-parse --local-env-vars`) or change what it prints.
var foreign = []string{
	"GIT_DIR", "GIT_WORK_TREE", "GIT_IMPLICIT_WORK_TREE", "GIT_COMMON_DIR", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY",
	"GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_GRAFT_FILE", "GIT_SHALLOW_FILE", "GIT_REPLACE_REF_BASE", "GIT_PREFIX",
	"GIT_NAMESPACE", "GIT_CONFIG", "GIT_EXTERNAL_DIFF", "GIT_DIFF_OPTS", "GIT_GLOB_PATHSPECS", "GIT_NOGLOB_PATHSPECS",
	"GIT_ICASE_PATHSPECS", "GIT_TRACE", "GIT_DEFAULT_HASH",
}

// Run runs git with args. stdin nil is empty, stdout nil is dropped. A failure is a [*host.ExitError].
func (g Git) Run(ctx context.Context, stdin io.Reader, stdout io.Writer, args ...string) error {
	if stdout == nil {
		stdout = io.Discard
	}
	return host.Run(ctx, g.command(stdin, stdout, args))
}

// Output runs git with args and returns what it printed.
func (g Git) Output(ctx context.Context, args ...string) ([]byte, error) {
	return host.Output(ctx, g.command(nil, nil, args))
}

// Line is [Git.Output] without the newline at the end.
func (g Git) Line(ctx context.Context, args ...string) (string, error) {
	out, err := g.Output(ctx, args...)
	return strings.TrimSuffix(string(out), "\n"), err
}

// List is [Git.Output] of a command that ends each item with a NUL, as -z makes most do.
func (g Git) List(ctx context.Context, args ...string) ([]string, error) {
	out, err := g.Output(ctx, args...)
	if err != nil || len(out) == 0 {
		return nil, err
	}
	return strings.Split(string(bytes.TrimSuffix(out, []byte{0})), "\x00"), nil
}

func (g Git) command(stdin io.Reader, stdout io.Writer, args []string) host.Command {
	argv := []string{"git", "--no-pager"}
	for _, kv := range slices.Concat(fixed, g.config) {
		argv = append(argv, "-c", kv)
	}
	return host.Command{
		Argv: append(argv, args...), Dir: g.dir, Env: slices.Concat(environment, g.env), Unset: foreign,
		Stdin: stdin, Stdout: stdout,
	}
}

// Exited reports whether err is git ending with the exit status code, as `git diff --quiet` does with 1.
func Exited(err error, code int) bool {
	var exit *host.ExitError
	return errors.As(err, &exit) && exit.Code == code
}

// Messages returns what git said on standard error when it ended with err, one message a line, or nil.
func Messages(err error) []string {
	var exit *host.ExitError
	if !errors.As(err, &exit) {
		return nil
	}
	return strings.Split(strings.TrimSpace(exit.Output), "\n")
}

// Scratch returns g with an object directory of its own in the directory tmp: git reads the objects below the directory
// objects too, and writes none there. The index is tmp/index, which the caller makes or git does.
func (g Git) Scratch(tmp, objects string) (Git, error) {
	own := filepath.Join(tmp, "objects")
	if err := os.MkdirAll(filepath.Join(own, "info"), 0o700); err != nil {
		return g, err
	}
	// A path in quotes may contain anything, a newline too (gitrepository-layout(5), objects/info/alternates).
	line := `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(objects) + `"` + "\n"
	if err := os.WriteFile(filepath.Join(own, "info", "alternates"), []byte(line), 0o600); err != nil {
		return g, err
	}
	return g.With("GIT_OBJECT_DIRECTORY="+own, "GIT_INDEX_FILE="+filepath.Join(tmp, "index")), nil
}

// WithIndex returns g with another index file.
func (g Git) WithIndex(path string) Git { return g.With("GIT_INDEX_FILE=" + path) }

// WithoutFilters returns g with every filter driver off that the user's configuration has, and git-lfs always.
func WithoutFilters(ctx context.Context, g Git) (Git, error) {
	keys, err := g.List(ctx, "config", "-z", "--name-only", "--get-regexp", `^filter\.`)
	if err != nil && !Exited(err, 1) { // 1: there is none
		return g, err
	}
	return g.Set(FiltersOff(FilterNames(keys))...), nil
}

// FilterNames returns the names of the filter drivers among the configuration variables keys, sorted, and lfs.
func FilterNames(keys []string) []string {
	names := []string{"lfs"}
	for _, key := range keys {
		if rest, ok := strings.CutPrefix(key, "filter."); ok {
			if i := strings.LastIndexByte(rest, '.'); i > 0 && !strings.Contains(rest, "=") { // -c cannot name one
				names = append(names, rest[:i])
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// FiltersOff returns the settings that switch the named filter drivers off (gitattributes(5), "filter").
func FiltersOff(names []string) []string {
	var set []string
	for _, name := range names {
		set = append(set, "filter."+name+".process=", "filter."+name+".clean=", "filter."+name+".smudge=",
			"filter."+name+".required=false")
	}
	return set
}
