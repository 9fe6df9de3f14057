package bzimage

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"io"
	"os"
	"regexp"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
	"golang.org/x/sys/unix"
)

// Vmlinux is what an uncompressed kernel says of itself.
type Vmlinux struct {
	Release string // uname -r
	Arch    string // uname -m; only x86_64 is known
	PVH     bool   // has the entry point that QEMU starts an ELF kernel at
	Config  []byte // its configuration, if it was built in (IKCONFIG)
}

// The note that holds the PVH entry point: Xen's public/elfnote.h.
const (
	noteOwner       = "Xen"
	noteTypeEntry32 = 18 // XEN_ELFNOTE_PHYS32_ENTRY
)

// Read reads the uncompressed kernel in f. What is none is an error of kind invalid.
func Read(f *os.File) (Vmlinux, error) {
	file, err := elf.NewFile(f)
	if err != nil {
		return Vmlinux{}, errkind.New(api.KindInvalid, "not an uncompressed kernel: %w", err)
	}
	defer file.Close()
	if file.Class != elf.ELFCLASS64 || file.Machine != elf.EM_X86_64 || file.Type != elf.ET_EXEC {
		return Vmlinux{}, errkind.New(api.KindInvalid, "kernel is a %s %s file for %s, not a 64-bit x86 one",
			file.Class, file.Type, file.Machine)
	}
	st, err := f.Stat()
	if err != nil {
		return Vmlinux{}, err
	}
	text, err := unix.Mmap(int(f.Fd()), 0, int(st.Size()), unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		return Vmlinux{}, &os.PathError{Op: "mmap", Path: f.Name(), Err: err}
	}
	defer unix.Munmap(text)
	k := Vmlinux{Arch: "x86_64", PVH: hasPVH(file), Config: builtInConfig(text)}
	if k.Release = release(text); k.Release == "" {
		return Vmlinux{}, errkind.New(api.KindInvalid, "file is no Linux kernel: it has no version")
	}
	return k, nil
}

var banner = regexp.MustCompile(`^Linux version ([0-9][^ \x00]*) `)

// release finds linux_banner of the kernel's init/version.c.
func release(text []byte) string {
	const key = "Linux version "
	for {
		i := bytes.Index(text, []byte(key))
		if i < 0 {
			return ""
		}
		if m := banner.FindSubmatch(text[i:min(i+256, len(text))]); m != nil {
			return string(m[1])
		}
		text = text[i+len(key):]
	}
}

// builtInConfig finds the gzip file between the markers of kernel/configs.c.
func builtInConfig(text []byte) []byte {
	_, rest, ok := bytes.Cut(text, []byte("IKCFG_ST\x1f\x8b"))
	if !ok {
		return nil
	}
	zr, err := gzip.NewReader(io.MultiReader(bytes.NewReader([]byte("\x1f\x8b")), bytes.NewReader(rest)))
	if err != nil {
		return nil
	}
	zr.Multistream(false)
	config, err := io.ReadAll(io.LimitReader(zr, 16<<20))
	if err != nil {
		return nil
	}
	return config
}

// hasPVH looks for the note of type noteTypeEntry32 in the program's note segments (elf(5), "Notes").
func hasPVH(file *elf.File) bool {
	for _, p := range file.Progs {
		if p.Type != elf.PT_NOTE {
			continue
		}
		b, err := io.ReadAll(io.LimitReader(p.Open(), 1<<20))
		if err != nil {
			continue
		}
		for len(b) >= 12 {
			nameLen, descLen := uint64(file.ByteOrder.Uint32(b)), uint64(file.ByteOrder.Uint32(b[4:]))
			typ := file.ByteOrder.Uint32(b[8:])
			end := 12 + align4(nameLen) + align4(descLen)
			if end > uint64(len(b)) {
				break
			}
			if string(bytes.TrimRight(b[12:12+nameLen], "\x00")) == noteOwner && typ == noteTypeEntry32 {
				return true
			}
			b = b[end:]
		}
	}
	return false
}

func align4(n uint64) uint64 { return (n + 3) &^ 3 }
