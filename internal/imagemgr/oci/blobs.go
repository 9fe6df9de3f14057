package oci

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

// blobs are layers of one repository, kept in a cache that all share.
type blobs struct {
	dir    string
	repo   name.Repository
	turns  *Turns
	client *http.Client // with the registry's authorization
	log    *slog.Logger
}

// partial is the suffix of a layer that is not complete.
const partial = ".partial"

func (b *blobs) path(digest v1.Hash) string { return filepath.Join(b.dir, digest.Hex) }

// Fetch brings the layers that are not here yet into the cache, and reports the bytes of all that are.
func (img *Image) Fetch(ctx context.Context, report func(done, total int64)) error {
	if img.blobs == nil {
		return nil
	}
	m, err := img.Manifest()
	if err != nil {
		return err
	}
	var total, done int64
	for _, l := range m.Layers {
		total += l.Size
	}
	for _, l := range m.Layers {
		if err := img.blobs.fetch(ctx, l, func(n int64) { report(done+n, total) }); err != nil {
			return fmt.Errorf("download layer %s: %w", l.Digest, err)
		}
		done += l.Size
		report(done, total)
	}
	return nil
}

// layers returns the layers, lowest first, to be read.
func (img *Image) layers() ([]v1.Layer, error) {
	if img.blobs == nil {
		return img.Layers()
	}
	m, err := img.Manifest()
	if err != nil {
		return nil, err
	}
	var all []v1.Layer
	for _, l := range m.Layers {
		layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return os.Open(img.blobs.path(l.Digest)) })
		if err != nil {
			return nil, err
		}
		all = append(all, layer)
	}
	return all, nil
}

// fetch downloads a layer, from where an earlier download ended, and verifies it.
func (b *blobs) fetch(ctx context.Context, l v1.Descriptor, report func(int64)) error {
	done, err := b.turns.take(ctx, l.Digest.Hex)
	if err != nil {
		return err
	}
	defer done()
	if _, err := os.Stat(b.path(l.Digest)); err == nil {
		return nil
	}
	if l.Digest.Algorithm != "sha256" {
		return errkind.New(api.KindInvalid, "digest algorithm %q is not known", l.Digest.Algorithm)
	}
	if err := os.MkdirAll(b.dir, 0o700); err != nil {
		return err
	}
	path := b.path(l.Digest) + partial
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	sum := sha256.New()
	have, err := io.Copy(sum, f)
	if err != nil {
		return err
	}
	if have < l.Size {
		if err := b.download(ctx, l, f, sum, have, report); err != nil {
			return err
		}
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != l.Digest.Hex {
		return errors.Join(errkind.WithHint(errkind.New(api.KindDataLoss, "what came has the digest sha256:%s", got), "try again: it is downloaded anew"),
			os.Remove(path))
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return os.Rename(path, b.path(l.Digest))
}

// download appends to f what is missing of a layer from byte have on.
func (b *blobs) download(ctx context.Context, l v1.Descriptor, f *os.File, sum hash.Hash, have int64, report func(int64)) error {
	u := url.URL{Scheme: b.repo.Scheme(), Host: b.repo.RegistryStr(), Path: fmt.Sprintf("/v2/%s/blobs/%s", b.repo.RepositoryStr(), l.Digest)}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return err
	}
	if have > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", have, l.Size-1)) // RFC 9110, 14.2
	}
	resp, err := b.client.Do(req)
	if err != nil {
		return errkind.New(api.KindUnavailable, "%w", err)
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusPartialContent:
		b.log.Info("download goes on", "layer", l.Digest, "from", have)
	case http.StatusOK: // from the beginning, whether that was asked for or not
		have = 0
		sum.Reset()
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return err
		}
		if err := f.Truncate(0); err != nil {
			return err
		}
	default:
		return errkind.New(api.KindUnavailable, "the registry answers %s", resp.Status)
	}
	body := &countReader{r: io.LimitReader(resp.Body, l.Size-have+1), n: have, report: report}
	n, err := io.Copy(io.MultiWriter(f, sum), body)
	switch {
	case err != nil:
		return errkind.New(api.KindUnavailable, "%w", err)
	case have+n != l.Size:
		return errkind.New(api.KindUnavailable, "%d bytes came, and it should have %d", have+n, l.Size)
	}
	return nil
}

// countReader reports how many bytes have gone by.
type countReader struct {
	r      io.Reader
	n      int64
	report func(int64)
}

func (c *countReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	c.report(c.n)
	return n, err
}
