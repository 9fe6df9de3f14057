package imagecmd

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/cli/app"
	"github.com/banger-vm/banger/internal/errkind"
)

type pullOptions struct {
	app   *app.App
	p     api.ImagePull
	root  app.SizeFlag
	quiet bool
}

func newPull(a *app.App) *cobra.Command {
	o := &pullOptions{app: a}
	cmd := &cobra.Command{
		Use: "pull REF", Short: "Make an image of an OCI image", Args: app.Args(1, 1, "one reference"),
		Long: `Make an image of an OCI or Docker image, without root and without Docker. REF is REPOSITORY[:TAG] or REPOSITORY@DIGEST in a
registry, which is asked with the credentials that "docker login" has stored; or it names files: oci:DIR[:TAG] a layout,
oci-archive:FILE or docker-archive:FILE what skopeo, podman save or docker save made, - one of these on standard input.

What is below /root goes to the work-seed. Entry point, command, environment, user and directory are kept: "banger vm run" runs the
command where no other is given. The image's name is made of REF unless --name gives one, and is printed. Layers stay in the
cache; a download that was interrupted goes on from there.`,
		Example: `  banger image pull alpine:3.20
  banger image pull --name go golang:1.26
  docker save my-app | banger image pull --name my-app -`,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.p.Ref = args[0]
			return runPull(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.p.Name, "name", "n", "", "the image's name (default: made from REF)")
	f.StringVar(&o.p.Platform, "platform", "", "which of several to take, such as linux/amd64 (default: this host's)")
	f.StringVar(&o.p.Kernel, "kernel", "", "kernel to boot it with (default: the configuration's)")
	f.StringVar(&o.p.Init, "init", "", "PID 1 of the guest: agent, or a path such as /sbin/init (default: agent)")
	f.Var(&o.root, "root-size", "size of the root disk, such as 4G (default: 8G, sparse)")
	f.BoolVar(&o.p.Replace, "replace", false, "take the name over from an image that has it")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "show no progress")
	cmd.RegisterFlagCompletionFunc("kernel", app.FlagCompletion(a.CompleteKernels(-1)))
	return cmd
}

func runPull(ctx context.Context, o *pullOptions) error {
	if o.p.Name != "" {
		if err := banger.CheckName("image", o.p.Name); err != nil {
			return err
		}
	}
	o.p.RootSize = int64(o.root)
	c, err := o.app.Client(ctx)
	if err != nil {
		return err
	}
	if o.p.Ref == "-" {
		remove, err := o.takeInput()
		defer remove()
		if err != nil {
			return err
		}
	}
	if o.p.Ref, err = absolute(o.p.Ref); err != nil {
		return err
	}
	prog := o.app.Progress(o.quiet)
	defer prog.End()
	done, err := o.app.Operate(ctx, c, prog, func(ctx context.Context) (api.OperationRef, error) { return c.ImagePullBegin(ctx, o.p) })
	if err != nil {
		return err
	}
	prog.End()
	img, err := c.ImageGet(ctx, done.Ref)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(o.app.Out, img.Name)
	return err
}

// absolute makes the path of a reference absolute, where it has one: the daemon works elsewhere.
func absolute(ref string) (string, error) {
	for _, scheme := range []string{"oci:", "oci-archive:", "docker-archive:"} {
		if rest, ok := strings.CutPrefix(ref, scheme); ok {
			abs, err := filepath.Abs(rest)
			return scheme + abs, err
		}
	}
	return ref, nil
}

// takeInput stores the archive on standard input in a file, and refers to that until remove is called.
func (o *pullOptions) takeInput() (remove func(), err error) {
	if o.p.Name == "" {
		return func() {}, errkind.WithHint(errkind.New(api.KindInvalid, "an image on standard input has no name"), "give it one with --name")
	}
	f, err := os.CreateTemp("", "banger-image-*.tar")
	if err != nil {
		return func() {}, err
	}
	remove = func() { os.Remove(f.Name()) }
	_, err = io.Copy(f, o.app.In)
	if err = errors.Join(err, f.Close()); err != nil {
		return remove, err
	}
	o.p.Ref, err = archiveRef(f.Name())
	return remove, err
}

// archiveRef returns a reference to an archive, by what is in it.
func archiveRef(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	docker := false
	for t := tar.NewReader(f); ; {
		hdr, err := t.Next()
		if err != nil {
			break // at the end, or it is no tar
		}
		switch path.Clean(hdr.Name) {
		case "oci-layout":
			return "oci-archive:" + file, nil
		case "manifest.json":
			docker = true
		}
	}
	if !docker {
		return "", errkind.WithHint(errkind.New(api.KindInvalid, "standard input has neither an OCI nor a Docker archive"),
			"`docker save`, `podman save` and `skopeo copy … oci-archive:FILE` make one; it must not be compressed")
	}
	return "docker-archive:" + file, nil
}
