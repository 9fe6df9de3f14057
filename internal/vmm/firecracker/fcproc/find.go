// Package fcproc is Firecracker as programs and files: which firecracker and jailer there are, and the [Cell] that one machine runs
// in, which is a plain process in the VM's run directory, or a jail.
package fcproc

import (
	"context"
	"fmt"
	"regexp"
	"strconv"

	"github.com/banger-vm/banger/internal/host"
	"github.com/banger-vm/banger/internal/preflight"
)

// MinMinor is the oldest supported Firecracker, 1.MinMinor: since then ACPI describes its devices, without which Debian's kernels
// find none, and its snapshots are stable.
const MinMinor = 10

// Whether machines run under the jailer: the values of the configuration's key jailer.
const (
	JailerAuto = "auto" // where the daemon is root and there is a jailer of Firecracker's version
	JailerOn   = "on"
	JailerOff  = "off"
)

// Config says which programs to use.
type Config struct {
	Firecracker string // path, or name on PATH
	Jailer      string // path, or name on PATH
	UseJailer   string // JailerAuto, JailerOn or JailerOff
	Root        bool   // whether this process may start a jailer
}

// Tools are the programs that were found. Empty ones were not.
type Tools struct {
	Firecracker string // absolute path
	Version     string // such as 1.16.1
	Jailer      string // absolute path; empty: machines run without
}

// lookAgain ends a fix that takes effect in the next daemon.
const lookAgain = "; then `banger daemon stop`, and the next command starts a daemon that looks again"

// versionLine is the first line that both programs print for --version.
var versionLine = regexp.MustCompile(`(?m)^(Firecracker|Jailer) v((\d+)\.(\d+)\.\d+\S*)`)

// Find finds the programs, and what keeps them from being used.
func Find(ctx context.Context, c Config) (Tools, []preflight.Problem) {
	var t Tools
	path, err := host.LookPath(c.Firecracker)
	if err != nil {
		return t, problem("install Firecracker, or name it in the configuration's firecracker_bin", "Firecracker is not installed: no program %q",
			c.Firecracker)
	}
	version, major, minor, err := versionOf(ctx, path, "Firecracker")
	if err != nil {
		return t, problem("name Firecracker in the configuration's firecracker_bin", "%s is not Firecracker: %v", path, err)
	}
	t.Firecracker, t.Version = path, version
	if major < 1 || major == 1 && minor < MinMinor {
		return t, problem(fmt.Sprintf("install Firecracker 1.%d or newer, or name one in the configuration's firecracker_bin", MinMinor),
			"Firecracker %s at %s is too old", version, path)
	}
	if c.UseJailer == JailerOff || c.UseJailer != JailerOn && !c.Root {
		return t, nil
	}
	jailer, why := findJailer(ctx, c, version)
	if why == "" {
		t.Jailer = jailer
		return t, nil
	}
	if c.UseJailer == JailerOn {
		return t, problem("install the jailer that belongs to Firecracker, or set jailer to auto", "the configuration insists on the jailer, but %s", why)
	}
	return t, nil
}

// findJailer returns the jailer of Firecracker's version, or why there is none.
func findJailer(ctx context.Context, c Config, version string) (path, why string) {
	if !c.Root {
		return "", "only root can start it"
	}
	path, err := host.LookPath(c.Jailer)
	if err != nil {
		return "", fmt.Sprintf("there is no program %q", c.Jailer)
	}
	got, _, _, err := versionOf(ctx, path, "Jailer")
	switch {
	case err != nil:
		return "", fmt.Sprintf("%s is not the jailer: %v", path, err)
	case got != version:
		return "", fmt.Sprintf("%s is of version %s, and Firecracker of version %s", path, got, version)
	}
	return path, ""
}

func versionOf(ctx context.Context, path, name string) (version string, major, minor int, err error) {
	out, err := host.Output(ctx, host.Command{Argv: []string{path, "--version"}})
	if err != nil {
		return "", 0, 0, err
	}
	m := versionLine.FindSubmatch(out)
	if m == nil || string(m[1]) != name {
		return "", 0, 0, fmt.Errorf("it does not tell the version of %s", name)
	}
	if major, err = strconv.Atoi(string(m[3])); err == nil {
		minor, err = strconv.Atoi(string(m[4]))
	}
	return string(m[2]), major, minor, err
}

func problem(fix, format string, args ...any) []preflight.Problem {
	return []preflight.Problem{{Detail: fmt.Sprintf(format, args...), Fix: fix + lookAgain}}
}
