package oci

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

// unpackLayout unpacks the tar of an OCI layout into dir: regular files with the names that a layout has, and nothing else.
func unpackLayout(ctx context.Context, file, dir string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	found := false
	for t := tar.NewReader(f); ; {
		hdr, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return errkind.New(api.KindInvalid, "%s is no OCI archive: %w", file, err)
		}
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		name := path.Clean(hdr.Name)
		if hdr.Typeflag != tar.TypeReg || !inLayout(name) {
			continue
		}
		found = found || name == "index.json"
		if err := writeBelow(root, name, t); err != nil {
			return err
		}
	}
	if !found {
		return errkind.WithHint(errkind.New(api.KindInvalid, "%s is no OCI archive: it has no index.json", file), "if `docker save` made it, it is a docker-archive:")
	}
	return nil
}

func inLayout(name string) bool {
	return name == "index.json" || name == "oci-layout" || strings.HasPrefix(name, "blobs/sha256/") && strings.Count(name, "/") == 2
}

func writeBelow(root *os.Root, name string, r io.Reader) error {
	if err := root.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	f, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}
