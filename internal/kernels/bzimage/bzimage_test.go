package bzimage_test

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/host"
	"github.com/banger-vm/banger/internal/kernels/bzimage"
	"github.com/banger-vm/banger/internal/kernels/kerneltest"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz/lzma"
)

// through returns what open's compressor makes of data.
func through[W io.WriteCloser](t *testing.T, data []byte, open func(io.Writer) (W, error)) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := open(&b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// program returns what a program makes of data; the test is skipped where it is not installed.
func program(t *testing.T, data []byte, argv ...string) []byte {
	t.Helper()
	if _, err := host.LookPath(argv[0]); err != nil {
		t.Skip(err)
	}
	out, err := host.Output(t.Context(), host.Command{Argv: argv, Stdin: bytes.NewReader(data)})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestExtract(t *testing.T) {
	kernel := kerneltest.Vmlinux{Release: "6.1.0-test", PVH: true}.Bytes()
	for name, compress := range map[string]func(t *testing.T) []byte{
		"nothing": func(*testing.T) []byte { return kernel },
		"gzip": func(t *testing.T) []byte {
			return through(t, kernel, func(w io.Writer) (*gzip.Writer, error) { return gzip.NewWriter(w), nil })
		},
		"lz4": func(t *testing.T) []byte {
			return through(t, kernel, func(w io.Writer) (*lz4.Writer, error) {
				lw := lz4.NewWriter(w)
				return lw, lw.Apply(lz4.LegacyOption(true))
			})
		},
		"zstd": func(t *testing.T) []byte {
			return through(t, kernel, func(w io.Writer) (*zstd.Encoder, error) { return zstd.NewWriter(w) })
		},
		"lzma": func(t *testing.T) []byte {
			return through(t, kernel, func(w io.Writer) (*lzma.Writer, error) { return lzma.NewWriter(w) })
		},
		"bzip2":                  func(t *testing.T) []byte { return program(t, kernel, "bzip2", "-c") },
		"lz4 of lz4(1)":          func(t *testing.T) []byte { return program(t, kernel, "lz4", "-l", "-c") },
		"zstd as kernels use it": func(t *testing.T) []byte { return program(t, kernel, "zstd", "-q", "-22", "--ultra", "-c") },
		// scripts/xz_wrap.sh of the kernel
		"xz with the x86 filter": func(t *testing.T) []byte {
			return program(t, kernel, "xz", "--check=crc32", "--x86", "--lzma2=dict=32MiB", "-c")
		},
	} {
		t.Run("by "+name, func(t *testing.T) {
			size := new(int)
			if *size = len(kernel); name == "gzip" {
				size = nil // gzip ends in it anyway
			}
			image := kerneltest.BzImage(compress(t), size)
			var got bytes.Buffer
			if err := bzimage.Extract(&got, bytes.NewReader(image)); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got.Bytes(), kernel) {
				t.Error("not the same kernel")
			}
		})
	}
}

func TestExtractRefuses(t *testing.T) {
	good := kerneltest.GzipImage(kerneltest.Vmlinux{Release: "6.1.0-test"})
	change := func(at int, to ...byte) []byte {
		b := bytes.Clone(good)
		copy(b[at:], to)
		return b
	}
	size := 5
	for name, image := range map[string][]byte{
		"an empty file":                 nil,
		"text":                          bytes.Repeat([]byte("no kernel\n"), 1000),
		"an old boot protocol":          change(0x206, 0x07, 0x02),
		"a payload of nothing":          change(0x24c, 0, 0, 0, 0),
		"a payload beyond the end":      change(0x248, 0, 0, 0, 0x7f),
		"a file that is cut short":      good[:len(good)-200],
		"damaged data":                  change(len(good)-400, bytes.Repeat([]byte{0xff}, 100)...),
		"lzo":                           kerneltest.BzImage([]byte("\x89LZO\x00\r\n\x1a\n and so on"), &size),
		"an unknown compression":        kerneltest.BzImage([]byte("compressed by magic"), &size),
		"a size other than it promises": kerneltest.BzImage([]byte("\x7fELF is not the whole of it"), &size),
	} {
		t.Run(name, func(t *testing.T) {
			err := bzimage.Extract(io.Discard, bytes.NewReader(image))
			if !errkind.Is(err, api.KindInvalid) {
				t.Errorf("error %v, want kind invalid", err)
			}
			t.Log(err)
		})
	}
	t.Run("a full disk is not the kernel's fault", func(t *testing.T) {
		err := bzimage.Extract(fullDisk{}, bytes.NewReader(good))
		if !errkind.Is(err, api.KindUnavailable) {
			t.Errorf("error %v, want kind unavailable", err)
		}
	})
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

func read(t *testing.T, b []byte) (bzimage.Vmlinux, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "vmlinux")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return bzimage.Read(f)
}

func TestRead(t *testing.T) {
	t.Run("says release, architecture, PVH entry and configuration", func(t *testing.T) {
		got, err := read(t, kerneltest.Vmlinux{Release: "6.1.0-5+b1", PVH: true, Config: "CONFIG_PVH=y\n"}.Bytes())
		if err != nil || got.Release != "6.1.0-5+b1" || got.Arch != "x86_64" || !got.PVH || string(got.Config) != "CONFIG_PVH=y\n" {
			t.Errorf("%+v, %v", got, err)
		}
	})
	t.Run("says that they are not there", func(t *testing.T) {
		got, err := read(t, kerneltest.Vmlinux{Release: "7"}.Bytes())
		if err != nil || got.Release != "7" || got.PVH || got.Config != nil {
			t.Errorf("%+v, %v", got, err)
		}
	})
	for name, b := range map[string][]byte{
		"a kernel for another processor": kerneltest.Vmlinux{Release: "6", Machine: elf.EM_AARCH64}.Bytes(),
		"a module":                       kerneltest.Module("depends="),
		"a file without a version":       kerneltest.Vmlinux{Release: "none"}.Bytes(),
		"an empty file":                  nil,
	} {
		t.Run("refuses "+name, func(t *testing.T) {
			if got, err := read(t, b); !errkind.Is(err, api.KindInvalid) {
				t.Errorf("%+v, %v, want kind invalid", got, err)
			}
		})
	}
}
