package app

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/config"
	"github.com/banger-vm/banger/internal/errkind"
)

// SizeFlag is a flag value in bytes, written as 512M or 2G. Zero means that it was not given.
type SizeFlag int64

func (s *SizeFlag) String() string { return Size(int64(*s)) }

// Set parses v.
func (s *SizeFlag) Set(v string) error {
	n, err := config.ParseSize(v)
	if err == nil && n <= 0 {
		err = errkind.New(api.KindInvalid, "size %q is not above zero", v)
	}
	*s = SizeFlag(n)
	return err
}

// Type is the word that help shows for the value.
func (*SizeFlag) Type() string { return "size" }

// Environment resolves --env values: NAME=VALUE stays, NAME takes the caller's value and must have one.
func (a *App) Environment(flags []string) ([]string, error) {
	var env []string
	for _, f := range flags {
		name, _, given := strings.Cut(f, "=")
		if name == "" {
			return nil, errkind.WithHint(errkind.New(api.KindInvalid, "--env %q: no variable name before the equals sign", f), "write it as NAME=VALUE, or NAME to pass on your own")
		}
		if !given {
			v, ok := a.LookupEnv(name)
			if !ok {
				return nil, errkind.WithHint(errkind.New(api.KindInvalid, "--env %q: not set in your environment", name),
					"give a value with --env %s=VALUE, or export %s first", name, name)
			}
			f = name + "=" + v
		}
		env = append(env, f)
	}
	return env, nil
}

// Args checks the number of positional arguments; max -1 is no limit. what names them in the message.
func Args(least, most int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < least && least == 1:
			return Usage(cmd.CommandPath(), "%s needs %s", cmd.CommandPath(), what)
		case len(args) < least:
			return Usage(cmd.CommandPath(), "%s needs %s, and %d were given", cmd.CommandPath(), what, len(args))
		case most >= 0 && len(args) > most && most == 0:
			return Usage(cmd.CommandPath(), "%s takes no arguments: %q", cmd.CommandPath(), args[0])
		case most >= 0 && len(args) > most:
			return Usage(cmd.CommandPath(), "%s takes %s: %q is too many", cmd.CommandPath(), what, args[most])
		}
		return nil
	}
}
