// Package kerneltest makes small things that look like kernels and modules to their readers: enough for tests of an import,
// not to boot.
package kerneltest

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"strings"
)

// Vmlinux says what a false uncompressed kernel has.
type Vmlinux struct {
	Release string
	PVH     bool
	Config  string // built in, unless empty
	Machine elf.Machine
}

// Bytes returns the ELF file.
func (v Vmlinux) Bytes() []byte {
	var text bytes.Buffer
	// The kernel holds its format string too.
	fmt.Fprintf(&text, "%%s version %%s\x00Linux version \x00Linux version %s (someone@somewhere) #1 SMP\n\x00", v.Release)
	if v.Config != "" {
		text.WriteString("IKCFG_ST")
		zw := gzip.NewWriter(&text)
		fmt.Fprint(zw, v.Config)
		zw.Close() // writes to memory
		text.WriteString("IKCFG_ED")
	}
	text.Write(bytes.Repeat([]byte("kernel text "), 20000))

	notes := note("Linux", 0x101, []byte{1, 0, 0, 0}) // one of another owner and an odd length of name
	if v.PVH {
		notes = append(notes, note("Xen", 18, []byte{0, 0, 0, 1})...)
	}
	machine := v.Machine
	if machine == 0 {
		machine = elf.EM_X86_64
	}
	const headers = 64 + 2*56
	h := header(elf.ET_EXEC, machine)
	h.Phoff, h.Phentsize, h.Phnum = 64, 56, 2
	progs := []elf.Prog64{
		{Type: uint32(elf.PT_LOAD), Off: uint64(headers + len(notes)), Filesz: uint64(text.Len()), Memsz: uint64(text.Len())},
		{Type: uint32(elf.PT_NOTE), Off: headers, Filesz: uint64(len(notes)), Memsz: uint64(len(notes))},
	}
	return concat(h, progs, notes, text.Bytes())
}

func note(owner string, typ uint32, desc []byte) []byte {
	name := append([]byte(owner), 0)
	b := concat([]uint32{uint32(len(name)), uint32(len(desc)), typ}, name)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return append(b, desc...)
}

func header(typ elf.Type, machine elf.Machine) elf.Header64 {
	h := elf.Header64{Type: uint16(typ), Machine: uint16(machine), Version: 1, Ehsize: 64}
	copy(h.Ident[:], elf.ELFMAG)
	h.Ident[elf.EI_CLASS], h.Ident[elf.EI_DATA], h.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)
	return h
}

func concat(parts ...any) []byte {
	var b bytes.Buffer
	for _, p := range parts {
		if err := binary.Write(&b, binary.LittleEndian, p); err != nil {
			panic(err) // only a type without a fixed size, which no caller passes
		}
	}
	return b.Bytes()
}

// BzImage wraps an already compressed kernel as boot.rst has it. size is the kernel's uncompressed size; nil appends
// none, for gzip.
func BzImage(compressed []byte, size *int) []byte {
	const setupSectors, payloadOffset = 2, 0x40
	b := make([]byte, (setupSectors+1)*512+payloadOffset)
	b[0x1f1] = setupSectors
	binary.LittleEndian.PutUint16(b[0x1fe:], 0xaa55)
	copy(b[0x202:], "HdrS")
	binary.LittleEndian.PutUint16(b[0x206:], 0x20f)
	payload := bytes.Clone(compressed)
	if size != nil {
		payload = binary.LittleEndian.AppendUint32(payload, uint32(*size))
	}
	binary.LittleEndian.PutUint32(b[0x248:], payloadOffset)
	binary.LittleEndian.PutUint32(b[0x24c:], uint32(len(payload)))
	return append(append(b, payload...), "what follows the payload"...)
}

// GzipImage returns v as a bzImage that is compressed by gzip.
func GzipImage(v Vmlinux) []byte {
	var b bytes.Buffer
	zw := gzip.NewWriter(&b)
	zw.Write(v.Bytes()) // writes to memory
	zw.Close()
	return BzImage(b.Bytes(), nil)
}

// Module returns a kernel module whose .modinfo has the fields, each KEY=VALUE.
func Module(fields ...string) []byte {
	info := []byte(strings.Join(fields, "\x00") + "\x00")
	names := []byte("\x00.modinfo\x00.shstrtab\x00")
	h := header(elf.ET_REL, elf.EM_X86_64)
	h.Shoff, h.Shentsize, h.Shnum, h.Shstrndx = uint64(64+len(info)+len(names)), 64, 3, 2
	sections := []elf.Section64{
		{},
		{Name: 1, Type: uint32(elf.SHT_PROGBITS), Flags: uint64(elf.SHF_ALLOC), Off: 64, Size: uint64(len(info)), Addralign: 1},
		{Name: 10, Type: uint32(elf.SHT_STRTAB), Off: uint64(64 + len(info)), Size: uint64(len(names)), Addralign: 1},
	}
	return concat(h, info, names, sections)
}
