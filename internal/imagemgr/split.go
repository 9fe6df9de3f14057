package imagemgr

import (
	"archive/tar"
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/opstate"
)

// Package is one installed package, as dpkg's status file names it.
type Package struct {
	Name    string `json:"name"`
	Arch    string `json:"arch"`
	Version string `json:"version"`
}

// content is what is known of a root filesystem once it has gone by.
type content struct {
	digest   string // sha256:HEX of the tar stream
	packages []Package
}

// splitter puts the entries of a root filesystem's tar stream into an image's file systems. On the way it leaves out what
// belongs to the host or to the build.
type splitter struct {
	trees
	status    bytes.Buffer // dpkg's
	machineID bool
}

const (
	statusPath    = "/var/lib/dpkg/status"
	machineIDPath = "/etc/machine-id"
	maxStatus     = 64 << 20 // bytes of dpkg's status that are kept; a full desktop has 5 MB
)

// dropped are paths that do not go into an image, in path.Match's syntax.
var dropped = []string{
	"/etc/hostname", "/etc/ssh/ssh_host_*", "/etc/*-", "/var/lib/dpkg/*-old", "/var/cache/debconf/*-old", "/var/log/*.log",
	"/var/log/apt/*", "/var/cache/apt/*.bin", "/var/cache/apt/archives/*.deb", "/var/lib/apt/lists/*_*", "/var/lib/systemd/random-seed",
}

// emptied are regular files that go into an image without their content: the host's resolver, and the machine's identity.
var emptied = []string{"/etc/resolv.conf", machineIDPath}

func (s *splitter) run(ctx context.Context, r io.Reader, rep opstate.Reporter) (content, error) {
	sum := sha256.New()
	counted := &countReader{r: r, rep: rep}
	stream := bufio.NewReaderSize(io.TeeReader(counted, sum), 1<<20)
	t := tar.NewReader(stream)
	for {
		hdr, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return content{}, fmt.Errorf("read tar: %w", err)
		}
		if err := s.add(ctx, hdr, t); err != nil {
			return content{}, err
		}
	}
	if _, err := io.Copy(io.Discard, stream); err != nil { // padding counts for the digest
		return content{}, err
	}
	if !s.machineID {
		hdr := &tar.Header{Typeflag: tar.TypeReg, Name: machineIDPath, Mode: 0o444}
		if err := s.rootfs.Add(ctx, hdr, nil); err != nil {
			return content{}, err
		}
	}
	packages := parseStatus(&s.status)
	if len(packages) == 0 {
		return content{}, errkind.New(api.KindInternal, "the root filesystem has no packages")
	}
	return content{digest: "sha256:" + hex.EncodeToString(sum.Sum(nil)), packages: packages}, nil
}

func (s *splitter) add(ctx context.Context, hdr *tar.Header, r io.Reader) error {
	name := path.Clean("/" + hdr.Name)
	matches := func(pattern string) bool { ok, _ := path.Match(pattern, name); return ok } // the patterns are well-formed
	if slices.ContainsFunc(dropped, matches) {
		return nil
	}
	if name == machineIDPath {
		s.machineID = true
	}
	if hdr.Typeflag == tar.TypeReg && slices.Contains(emptied, name) {
		h := *hdr
		h.Size = 0
		return s.Add(ctx, &h, nil)
	}
	if name == statusPath {
		r = io.TeeReader(r, &limitedWriter{w: &s.status, left: maxStatus})
	}
	return s.Add(ctx, hdr, r)
}

// parseStatus reads dpkg's status file: paragraphs of "Field: value" lines, one for each package, of which those with
// the status "… ok installed" are installed (dpkg(1), deb822(5)).
func parseStatus(r io.Reader) []Package {
	var all []Package
	var p Package
	installed := false
	flush := func() {
		if installed && p.Name != "" {
			all = append(all, p)
		}
		p, installed = Package{}, false
	}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		field, value, _ := strings.Cut(lines.Text(), ": ")
		switch field {
		case "":
			flush()
		case "Package":
			p.Name = value
		case "Architecture":
			p.Arch = value
		case "Version":
			p.Version = value
		case "Status":
			installed = strings.HasSuffix(value, " ok installed")
		}
	}
	flush()
	slices.SortFunc(all, func(a, b Package) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Arch, b.Arch)) })
	return all
}

// packagesDigest is the hash that image.json gives of the list.
func packagesDigest(list []Package) string {
	h := sha256.New()
	for _, p := range list {
		fmt.Fprintf(h, "%s %s %s\n", p.Name, p.Arch, p.Version)
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil))
}

// countReader reports how many bytes have gone by, and begins the stage when the first one does.
type countReader struct {
	r   io.Reader
	rep opstate.Reporter
	n   int64
}

func (c *countReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if n > 0 && c.n == 0 {
		c.rep.Stage("write file systems")
	}
	c.n += int64(n)
	if n > 0 {
		c.rep.Progress(c.n, 0, "bytes")
	}
	return n, err
}

// limitedWriter drops what comes after left bytes.
type limitedWriter struct {
	w    io.Writer
	left int
}

func (l *limitedWriter) Write(p []byte) (int, error) {
	n := min(len(p), l.left)
	l.left -= n
	if _, err := l.w.Write(p[:n]); err != nil {
		return 0, err
	}
	return len(p), nil
}
