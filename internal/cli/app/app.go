// Package app is what every banger command is given: streams, environment, the way to the daemon, output forms, progress,
// and the one place where errors become words and exit codes.
//
// Commands are built as `options struct + constructor + run(ctx, options)`: the constructor (NewStart(a *App)) declares
// flags and help and fills the struct, run does the work and never looks at cobra. Nothing below this package reads
// os.Args, os.Stdin or the environment directly, so that tests run whole commands in their own process.
//
// # Signals
//
// [Interrupts] owns SIGINT, SIGTERM and SIGHUP. By default the first one ends the command's context, whose cause is a
// [SignalError]; the command undoes what it must and returns; a second one ends the process at once, after the terminal
// has been restored.
package app

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/term"

	"github.com/banger-vm/banger/internal/config"
	"github.com/banger-vm/banger/internal/host"
)

// Streams are a command's standard streams, and which of them are terminals.
type Streams struct {
	In                    io.Reader
	Out, Err              io.Writer
	InTTY, OutTTY, ErrTTY bool
}

// StdStreams returns streams on three files.
func StdStreams(in, out, err *os.File) Streams {
	tty := func(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }
	return Streams{In: in, Out: out, Err: err, InTTY: tty(in), OutTTY: tty(out), ErrTTY: tty(err)}
}

// App is the surroundings of one command.
type App struct {
	Streams
	Version    string                         // build version of this program
	Executable string                         // path of this program; bangerd is looked for beside it
	LookupEnv  func(string) (string, bool)    // as os.LookupEnv
	Signals    *Interrupts                    // who is told of signals
	Replace    func(argv, env []string) error // execve(2): on success it does not return
	Paths      func() (config.Paths, error)   // where the daemon and its files are
	NoStart    bool                           // --no-start: use a running daemon only
}

// New returns the App of this process.
func New(version string) *App {
	exe, err := os.Executable()
	if err != nil {
		exe = os.Args[0]
	}
	return &App{
		Streams: StdStreams(os.Stdin, os.Stdout, os.Stderr), Version: version, Executable: exe,
		LookupEnv: os.LookupEnv, Signals: NewInterrupts(os.Exit),
		Replace: func(argv, env []string) error { return syscall.Exec(argv[0], argv, env) },
		Paths:   func() (config.Paths, error) { return config.ClientPaths(os.LookupEnv, host.MayEnter) },
	}
}

// PatchesDir is where exports go that nobody has named. What the system's daemon keeps is root's; the patches of those who use it
// are in their own directories.
func (a *App) PatchesDir() (string, error) {
	paths, err := a.Paths()
	if err == nil && paths.System {
		paths, err = config.FindPaths(func(name string) (string, bool) {
			if name == "BANGER_SYSTEM" {
				return "", false
			}
			return a.LookupEnv(name)
		})
	}
	return paths.PatchesDir(), err
}

// Env returns an environment variable, empty when it is not set.
func (a *App) Env(name string) string {
	v, _ := a.LookupEnv(name)
	return v
}

// Color reports whether text for w, one of the App's streams, may be coloured (no-color.org).
func (a *App) Color(w io.Writer) bool {
	tty := a.OutTTY
	if w == a.Err {
		tty = a.ErrTTY
	}
	return tty && a.Env("NO_COLOR") == "" && a.Env("TERM") != "dumb"
}

// Self returns the words that run this program again from a shell-free place, such as another program's configuration.
func (a *App) Self() string {
	if abs, err := filepath.Abs(a.Executable); err == nil {
		return abs
	}
	return a.Executable
}

// ShellQuote quotes s as one word of a POSIX shell. It is for commands that a person copies and for ssh's ProxyCommand,
// which ssh gives to a shell; banger itself runs none.
func ShellQuote(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:=@%+,", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
