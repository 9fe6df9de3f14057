// Package fctest is a double of Firecracker: a process that speaks its API, checks every request against the published description
// (firecracker.yaml, of version 1.16.1) and the rules of what may come before and after the start, refuses what the real one refuses in
// its words, and "boots" a guest that speaks the protocol of package vmmtest on the vsock's socket.
//
// A test program is both test and double: its TestMain calls [Main] first, and [Install] gives it the names of the programs.
//
// What the double knows beyond the description was read in the source of the real one and tried on it; the tests of package
// firecracker run on the real one too where BANGER_FIRECRACKER names it. Differences: after words of the JSON parser the real one
// says line and column; and it makes a tap that does not exist, where the double opens none.
package fctest

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// Version is what the doubles say they are.
const Version = "1.16.1"

// Main is the double's main function when this process was started as one; else it returns.
func Main() {
	var err error
	switch filepath.Base(os.Args[0]) {
	case "firecracker":
		err = firecracker(os.Args[1:])
	case "jailer":
		err = jailer(os.Args[1:])
	default:
		return
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "Error: %v\n", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// noLinger is what a program with the race detector must be told not to sleep for a second before it ends.
const noLinger = "atexit_sleep_ms=0"

// Install makes this test program known as firecracker and jailer, and returns their paths.
func Install(t testing.TB) (firecracker, jailer string) {
	t.Helper()
	t.Setenv("GORACE", noLinger)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	firecracker, jailer = filepath.Join(dir, "firecracker"), filepath.Join(dir, "jailer")
	for _, path := range []string{firecracker, jailer} {
		if err := os.Symlink(self, path); err != nil {
			t.Fatal(err)
		}
	}
	return firecracker, jailer
}

// options reads arguments of the form --name value. Names that are not allowed are refused; what follows -- is rest.
func options(args []string, allowed ...string) (values map[string]string, rest []string, err error) {
	values = map[string]string{}
	for len(args) > 0 {
		name := args[0]
		if name == "--" {
			return values, args[1:], nil
		}
		if !slices.Contains(allowed, strings.TrimPrefix(name, "--")) || len(args) < 2 {
			return nil, nil, fmt.Errorf("ParseArguments(UnexpectedArgument(%q))", name)
		}
		values[strings.TrimPrefix(name, "--")] = args[1]
		args = args[2:]
	}
	return values, nil, nil
}

func firecracker(args []string) error {
	if slices.Equal(args, []string{"--version"}) {
		fmt.Printf("Firecracker v%s\n\n", Version)
		return nil
	}
	opts, _, err := options(args, "id", "api-sock", "log-path", "level", "start-time-us", "start-time-cpu-us", "parent-cpu-time-us")
	if err != nil {
		return err
	}
	d, err := newDouble(os.Getenv(jailVariable))
	if err != nil {
		return err
	}
	log, err := os.OpenFile(d.path(opts["log-path"]), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("LoggerInitialization(%w)", err)
	}
	d.log = log
	l, err := net.Listen("unix", d.path(opts["api-sock"]))
	if err != nil {
		return fmt.Errorf("RunWithApi(FailedToBindSocket(%w))", err)
	}
	return http.Serve(l, d)
}

// jailVariable tells a double that it is jailed, and where: it changes no root, for which it would have to be root.
const jailVariable = "BANGER_FCTEST_JAIL"

// jailer makes the tree of a jail, with files for devices, and becomes the double in it.
func jailer(args []string) error {
	if slices.Equal(args, []string{"--version"}) {
		fmt.Printf("Jailer v%s\n\n", Version)
		return nil
	}
	opts, rest, err := options(args, "id", "exec-file", "uid", "gid", "chroot-base-dir")
	if err != nil {
		return err
	}
	for _, name := range []string{"id", "exec-file", "uid", "gid", "chroot-base-dir"} {
		if opts[name] == "" {
			return fmt.Errorf("ArgumentParsing(MissingArgument(%q))", name)
		}
	}
	name := filepath.Base(opts["exec-file"])
	root := filepath.Join(opts["chroot-base-dir"], name, opts["id"], "root")
	if err := os.MkdirAll(filepath.Join(root, "dev", "net"), 0o700); err != nil {
		return err
	}
	err = errors.Join(
		os.MkdirAll(filepath.Join(root, "run"), 0o700),
		os.WriteFile(filepath.Join(root, "dev", "kvm"), nil, 0o600),
		os.WriteFile(filepath.Join(root, "dev", "net", "tun"), nil, 0o600),
		os.Symlink(opts["exec-file"], filepath.Join(root, name)), // the real one copies it
	)
	if err != nil {
		return err
	}
	// Like the real one, it takes nothing of its environment along.
	path := filepath.Join(root, name)
	return syscall.Exec(path, append([]string{path, "--id", opts["id"]}, rest...), []string{jailVariable + "=" + root, "GORACE=" + noLinger})
}
