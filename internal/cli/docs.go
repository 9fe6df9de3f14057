package cli

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/banger-vm/banger/internal/cli/app"
	"github.com/banger-vm/banger/internal/cli/systemcmd"
)

func newDocs(a *app.App) *cobra.Command {
	cmd := &cobra.Command{Use: "docs", Short: "Generate documentation from the commands", Hidden: true, Args: cobra.NoArgs,
		Long: "Generate documentation from the commands. It is for building packages."}
	cmd.AddCommand(&cobra.Command{
		Use: "man DIR", Short: "Write a man page for each command", Args: app.Args(1, 1, "one directory"),
		Long:    "Write a man page for each command into DIR, which is made if it is missing.",
		Example: `  banger docs man /usr/local/share/man/man1`,
		RunE:    func(c *cobra.Command, args []string) error { return writeMan(c.Root(), a.Version, args[0]) },
	}, &cobra.Command{
		Use: "share DIR", Short: "Write man pages and completions", Args: app.Args(1, 1, "one directory"),
		Long:    "Write the man pages, and completions for bash, zsh and fish, as a tree into DIR, which stands for PREFIX/share.",
		Example: `  banger docs share /usr/local/share`,
		RunE:    func(c *cobra.Command, args []string) error { return writeShared(c.Root(), a.Version, args[0]) },
	})
	return cmd
}

func writeShared(root *cobra.Command, version, dir string) error {
	files, err := shared(root, version, dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		if err := os.MkdirAll(filepath.Dir(f.Path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(f.Path, f.Data, f.Mode); err != nil {
			return err
		}
	}
	return nil
}

// shared returns what is installed beside the programs, below dir: man pages, and completions for three shells.
func shared(root *cobra.Command, version, dir string) ([]systemcmd.File, error) {
	var out []systemcmd.File
	add := func(path string, data []byte) {
		out = append(out, systemcmd.File{Path: filepath.Join(dir, path), Mode: 0o644, Data: data})
	}
	err := eachPage(root, func(cmd *cobra.Command, name string) error {
		add("man/man1/"+name+".1", []byte(manPage(cmd, name, version)))
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, shell := range []struct {
		path string
		gen  func(io.Writer) error
	}{
		{"bash-completion/completions/banger", func(w io.Writer) error { return root.GenBashCompletionV2(w, true) }},
		{"zsh/site-functions/_banger", root.GenZshCompletion},
		{"fish/vendor_completions.d/banger.fish", func(w io.Writer) error { return root.GenFishCompletion(w, true) }},
	} {
		var b bytes.Buffer
		if err := shell.gen(&b); err != nil {
			return nil, err
		}
		add(shell.path, b.Bytes())
	}
	return out, nil
}

// writeMan writes a page for cmd and each command below it.
func writeMan(cmd *cobra.Command, version, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return eachPage(cmd, func(cmd *cobra.Command, name string) error {
		return os.WriteFile(filepath.Join(dir, name+".1"), []byte(manPage(cmd, name, version)), 0o644)
	})
}

// eachPage calls write for cmd and each command below it that has a page, with the page's name.
func eachPage(cmd *cobra.Command, write func(cmd *cobra.Command, name string) error) error {
	if cmd.Hidden {
		return nil
	}
	if err := write(cmd, strings.ReplaceAll(cmd.CommandPath(), " ", "-")); err != nil {
		return err
	}
	for _, sub := range cmd.Commands() {
		if err := eachPage(sub, write); err != nil {
			return err
		}
	}
	return nil
}

// manPage is the page of a command. The format is man(7).
func manPage(cmd *cobra.Command, name, version string) string {
	var b strings.Builder
	section := func(title string) { fmt.Fprintf(&b, ".SH %s\n", title) }
	fmt.Fprintf(&b, ".TH %q 1 \"\" \"banger %s\" \"banger\"\n", strings.ToUpper(name), roff(version))
	section("NAME")
	fmt.Fprintf(&b, "%s \\- %s\n", roff(name), roff(cmd.Short))
	if cmd.Runnable() {
		section("SYNOPSIS")
		fmt.Fprintf(&b, "\\fB%s\\fP\n", roff(cmd.UseLine()))
	}
	section("DESCRIPTION")
	if cmd.Runnable() {
		b.WriteString(roff(cmd.Long) + "\n")
	} else {
		literal(&b, cmd.Long) // a help topic is laid out
	}
	if cmd.HasAvailableFlags() {
		section("OPTIONS")
		cmd.NonInheritedFlags().VisitAll(func(f *pflag.Flag) { manFlag(&b, f) })
		cmd.InheritedFlags().VisitAll(func(f *pflag.Flag) { manFlag(&b, f) })
	}
	if cmd.Example != "" {
		section("EXAMPLES")
		literal(&b, cmd.Example)
	}
	if see := related(cmd); len(see) > 0 {
		section("SEE ALSO")
		b.WriteString(strings.Join(see, ",\n") + "\n")
	}
	return b.String()
}

func manFlag(b *strings.Builder, f *pflag.Flag) {
	if f.Hidden {
		return
	}
	word, usage := pflag.UnquoteUsage(f)
	flag := `\fB\-\-` + roff(f.Name) + `\fP`
	if f.Shorthand != "" {
		flag = `\fB\-` + f.Shorthand + `\fP, ` + flag
	}
	if word != "" {
		flag += ` \fI` + roff(word) + `\fP`
	}
	fmt.Fprintf(b, ".TP\n%s\n%s\n", flag, roff(usage))
}

func literal(b *strings.Builder, text string) {
	fmt.Fprintf(b, ".nf\n%s\n.fi\n", roff(text))
}

func related(cmd *cobra.Command) []string {
	var see []string
	page := func(c *cobra.Command) {
		if !c.Hidden {
			see = append(see, fmt.Sprintf(`\fB%s\fP(1)`, roff(strings.ReplaceAll(c.CommandPath(), " ", "-"))))
		}
	}
	if cmd.HasParent() {
		page(cmd.Parent())
	}
	for _, sub := range cmd.Commands() {
		page(sub)
	}
	return see
}

// roff escapes text for groff_man(7): backslashes and hyphens, and dots and quotes that would begin a request.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, `-`, `\-`).Replace(s)
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, ".") || strings.HasPrefix(l, "'") {
			lines[i] = `\&` + l
		}
	}
	return strings.Join(lines, "\n")
}
