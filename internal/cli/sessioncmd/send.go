package sessioncmd

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/client"
	"github.com/banger-vm/banger/internal/cli/app"
	"github.com/banger-vm/banger/internal/errkind"
)

// newSend returns `banger vm session send`.
func newSend(a *app.App) *cobra.Command {
	var file string
	var keys []string
	var eof bool
	cmd := &cobra.Command{
		Use: "send VM SESSION [TEXT]", Short: "Give a session input, without attaching",
		Long: `Give a session input: TEXT, as it is and without a newline; then a file, or with --file - this program's standard input; then keys;
and with --eof the end of the input. Keys are a letter, or a name as tmux has them: C-c, M-x, Enter, Tab, Escape, Space, BSpace,
Up, Down, Left, Right, Home, End, PageUp, PageDown, Delete. It waits while the session does not read its input.`,
		Example: `  banger vm session send web agent 'run the tests' --key Enter
  banger vm session send web server --key C-c
  banger vm session send web sort --file words.txt --eof`,
	}
	named(a, cmd, 3, "a VM, a session and a text", func(ctx context.Context, c *client.Client, vm, session string, rest []string) error {
		if len(rest) == 0 && file == "" && len(keys) == 0 && !eof {
			return app.Usage(cmd.CommandPath(), "there is nothing to send")
		}
		s, err := c.SessionGet(ctx, vm, session)
		if err != nil {
			return err
		}
		typed, err := press(keys, s.TTY)
		if err != nil {
			return err
		}
		send := func(data []byte, eof bool) error {
			return c.SessionSend(ctx, api.SessionSend{
				Ref: api.Ref{Ref: vm}, SessionSend: guestapi.SessionSend{SessionRef: ref(s.ID), Data: data, EOF: eof},
			})
		}
		source, err := openSource(a, file)
		if err != nil {
			return err
		}
		defer source.Close()
		return sendAll(io.MultiReader(strings.NewReader(strings.Join(rest, "")), source, strings.NewReader(typed)), eof, send)
	})
	f := cmd.Flags()
	f.StringVar(&file, "file", "", "send this file; - is standard input")
	f.StringArrayVarP(&keys, "key", "k", nil, "press this key (repeatable)")
	f.BoolVar(&eof, "eof", false, "and end the input")
	return cmd
}

func openSource(a *app.App, file string) (io.ReadCloser, error) {
	switch file {
	case "":
		return io.NopCloser(strings.NewReader("")), nil
	case "-":
		return io.NopCloser(a.In), nil
	}
	f, err := os.Open(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, errkind.New(api.KindNotFound, "there is no file %q", file)
	}
	return f, err
}

// sendAll sends all of r in pieces of 64 KiB, and the end with the last.
func sendAll(r io.Reader, eof bool, send func(data []byte, eof bool) error) error {
	buf := make([]byte, 64<<10)
	for {
		n, err := io.ReadFull(r, buf)
		last := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !last {
			return err
		}
		if n > 0 || last && eof {
			if err := send(buf[:n], last && eof); err != nil {
				return err
			}
		}
		if last {
			return nil
		}
	}
}

// keyNames are what named keys send, on a terminal as xterm has them.
var keyNames = map[string]string{
	"enter": "\r", "tab": "\t", "escape": "\x1b", "space": " ", "bspace": "\x7f", "up": "\x1b[A", "down": "\x1b[B", "right": "\x1b[C",
	"left": "\x1b[D", "home": "\x1b[H", "end": "\x1b[F", "pageup": "\x1b[5~", "pagedown": "\x1b[6~", "delete": "\x1b[3~",
}

// press returns the bytes that keys send. Without a terminal Enter is a newline.
func press(keys []string, terminal bool) (string, error) {
	var b strings.Builder
	for _, key := range keys {
		text, err := keyBytes(key)
		if err != nil {
			return "", err
		}
		if text == "\r" && !terminal {
			text = "\n"
		}
		b.WriteString(text)
	}
	return b.String(), nil
}

func keyBytes(key string) (string, error) {
	if text, ok := keyNames[strings.ToLower(key)]; ok {
		return text, nil
	}
	prefix, rest, _ := strings.Cut(key, "-")
	switch {
	case len([]rune(key)) == 1:
		return key, nil
	case strings.EqualFold(prefix, "C") && len(rest) == 1 && rest[0]|0x20 >= 'a' && rest[0]|0x20 <= 'z',
		strings.EqualFold(prefix, "C") && slices.Contains([]string{"@", "[", "\\", "]", "^", "_"}, rest):
		return string(rune(rest[0] & 0x1f)), nil
	case strings.EqualFold(prefix, "M") && len([]rune(rest)) == 1:
		return "\x1b" + rest, nil
	}
	return "", errkind.WithHint(errkind.New(api.KindInvalid, "there is no key %q", key), "use a letter, C-c, M-x, Enter, Tab, Escape, Up, and so on")
}
