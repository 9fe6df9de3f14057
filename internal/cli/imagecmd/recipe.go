package imagecmd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/spf13/cobra"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/cli/app"
	"github.com/banger-vm/banger/internal/config"
	"github.com/banger-vm/banger/internal/errkind"
)

type recipeOptions struct {
	app     *app.App
	file    string
	secrets []string
	p       api.ImageRecipe
	quiet   bool
}

func newBuildRecipe(a *app.App) *cobra.Command {
	o := &recipeOptions{app: a}
	cmd := &cobra.Command{
		Use: "build -f RECIPE", Short: "Build an image", Args: cobra.NoArgs,
		Long: `Build an image of another one by a recipe: a guest that is in no list boots on a clone of the base, gets files and runs steps; then its
disks become the image. "banger image build debian" makes a first image from packages. RECIPE is a TOML file:

  base = "debian"              # image to begin with
  env  = ["GOFLAGS=-v"]        # also: user, kernel, init, root-size = "16G"

  [[file]]                     # copied before the steps; also: mode = "0755"
  source = "motd"              # on this side, relative to the recipe; or content = "..."
  path   = "/etc/motd"

  [[step]]
  run = "apt-get update && apt-get install -y golang"

  [[step]]
  run = "git clone https://x:$TOKEN@git.example/tool"
  secrets = ["TOKEN"]          # a variable of this step only, from --secret

A step is run by the guest's /bin/sh -e, in /. The image's name is the recipe's without ".toml" unless --name gives one, and is printed. If
the image is there and nothing of the recipe has changed, it is not built again. Ctrl-C cancels and leaves nothing behind.`,
		Example: `  banger image build -f go-dev.toml
  banger image build -f go-dev.toml --secret id=TOKEN,src=$HOME/.token --replace`,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return runBuildRecipe(cmd.Context(), o) },
	}
	f := cmd.Flags()
	f.StringVarP(&o.file, "file", "f", "", "recipe to follow")
	f.StringVarP(&o.p.Name, "name", "n", "", "the image's name (default: made from RECIPE)")
	f.StringArrayVar(&o.secrets, "secret", nil, "secret for the steps that name it: id=NAME,src=FILE (repeatable)")
	f.BoolVar(&o.p.Replace, "replace", false, "take the name over from an image that has it")
	f.BoolVar(&o.p.NoCache, "no-cache", false, "build also when nothing has changed; with --replace where the image is there")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "show no progress")
	return cmd
}

func runBuildRecipe(ctx context.Context, o *recipeOptions) error {
	if o.file == "" {
		return errkind.WithHint(errkind.New(api.KindInvalid, "no recipe"), "name one with -f, or build the first image with `banger image build debian`")
	}
	if o.p.Name == "" {
		o.p.Name = strings.TrimSuffix(filepath.Base(o.file), ".toml")
	}
	if err := banger.CheckName("image", o.p.Name); err != nil {
		return errkind.WithHint(err, "give the image a name with --name")
	}
	if err := readRecipe(o.file, &o.p); err != nil {
		return err
	}
	for _, s := range o.secrets {
		secret, err := readSecret(s)
		if err != nil {
			return err
		}
		o.p.Secrets = append(o.p.Secrets, secret)
	}
	c, err := o.app.Client(ctx)
	if err != nil {
		return err
	}
	return await(ctx, o.app, c, o.p.Name, o.quiet, func(ctx context.Context) (api.OperationRef, error) { return c.ImageRecipeBegin(ctx, o.p) })
}

// recipeFile is what a recipe may hold.
type recipeFile struct {
	Base     string   `toml:"base"`
	Kernel   string   `toml:"kernel"`
	Init     string   `toml:"init"`
	User     string   `toml:"user"`
	RootSize string   `toml:"root-size"`
	Env      []string `toml:"env"`
	Files    []struct {
		Source  string `toml:"source"`
		Content string `toml:"content"`
		Path    string `toml:"path"`
		Mode    string `toml:"mode"`
	} `toml:"file"`
	Steps []struct {
		Run     string   `toml:"run"`
		Secrets []string `toml:"secrets"`
	} `toml:"step"`
}

// readRecipe reads the recipe at path, and the files that it names, into p.
func readRecipe(path string, p *api.ImageRecipe) error {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return errkind.New(api.KindNotFound, "no recipe %s", path)
	}
	if err != nil {
		return err
	}
	var rec recipeFile
	if err := decode(path, data, &rec); err != nil {
		return err
	}
	p.Base, p.Kernel, p.Init, p.User, p.Env = rec.Base, rec.Kernel, rec.Init, rec.User, rec.Env
	if rec.RootSize != "" {
		if p.RootSize, err = config.ParseSize(rec.RootSize); err != nil {
			return fmt.Errorf("%s: root-size: %w", path, err)
		}
	}
	for _, f := range rec.Files {
		file := api.RecipeFile{Path: f.Path, Content: []byte(f.Content)}
		if file.Mode, err = fileMode(f.Mode); err != nil {
			return fmt.Errorf("%s: file %q: %w", path, f.Path, err)
		}
		if f.Source != "" {
			if f.Content != "" {
				return errkind.New(api.KindInvalid, "%s: file %q has both source and content", path, f.Path)
			}
			if file.Content, err = os.ReadFile(relative(path, f.Source)); err != nil {
				return fmt.Errorf("%s: file %q: %w", path, f.Path, err)
			}
		}
		p.Files = append(p.Files, file)
	}
	for _, s := range rec.Steps {
		p.Steps = append(p.Steps, api.RecipeStep{Run: s.Run, Secrets: s.Secrets})
	}
	return checkSize(path, p.Files)
}

// decode reads TOML strictly: an error tells the line.
func decode(path string, data []byte, rec *recipeFile) error {
	err := toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields().Decode(rec)
	var missing *toml.StrictMissingError
	if errors.As(err, &missing) {
		line, _ := missing.Errors[0].Position()
		return errkind.WithHint(errkind.New(api.KindInvalid, "%s:%d: unknown key %q", path, line, strings.Join(missing.Errors[0].Key(), ".")),
			"`banger image build --help` shows what a recipe may hold")
	}
	var bad *toml.DecodeError
	if errors.As(err, &bad) {
		line, _ := bad.Position()
		return errkind.New(api.KindInvalid, "%s:%d: %s", path, line, strings.TrimPrefix(bad.Error(), "toml: "))
	}
	return err
}

// relative returns source as seen from the recipe's directory.
func relative(recipe, source string) string {
	if filepath.IsAbs(source) {
		return source
	}
	return filepath.Join(filepath.Dir(recipe), source)
}

// fileMode reads permissions as chmod(1) does; none is 0644.
func fileMode(s string) (int64, error) {
	if s == "" {
		return 0o644, nil
	}
	mode, err := strconv.ParseUint(s, 8, 12)
	if err != nil {
		return 0, errkind.WithHint(errkind.New(api.KindInvalid, "bad mode %q", s), `write it in octal, as in mode = "0755"`)
	}
	return int64(mode), nil
}

// maxFiles is how many bytes the files of a recipe may have together: they travel in one request, as base64.
const maxFiles = api.MaxLine / 2

func checkSize(path string, files []api.RecipeFile) error {
	sum := 0
	for _, f := range files {
		sum += len(f.Content)
	}
	if sum > maxFiles {
		return errkind.WithHint(errkind.New(api.KindInvalid, "%s: its files have %s together, and may have %s", path, app.Size(int64(sum)), app.Size(maxFiles)),
			"let a step fetch what is large")
	}
	return nil
}

// readSecret reads what --secret names, id=NAME,src=FILE.
func readSecret(s string) (api.RecipeSecret, error) {
	id, src, ok := strings.Cut(s, ",src=")
	id, hasID := strings.CutPrefix(id, "id=")
	if !ok || !hasID || id == "" || src == "" {
		return api.RecipeSecret{}, errkind.WithHint(errkind.New(api.KindInvalid, "bad secret %q", s), "write it as id=NAME,src=FILE")
	}
	value, err := os.ReadFile(src)
	return api.RecipeSecret{ID: id, Value: value}, err
}
