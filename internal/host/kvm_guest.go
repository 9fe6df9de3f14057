package host

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
)

// tinyGuest goes from reset through protected mode into long mode with paging, as every kernel does, and says so by an exit
// status. It is the beginning of a ROM of 64 KiB that ends at 4 GiB.
const tinyGuest = "" +
	"\xfa" + // cli ; real mode, at 0xffff0000
	"\x2e\x66\x0f\x01\x16\xa0\x00" + // lgdtl %cs:gdtr
	"\x0f\x20\xc0" + // movl %cr0, %eax
	"\x0c\x01" + // orb $1, %al ; CR0.PE
	"\x0f\x22\xc0" + // movl %eax, %cr0
	"\x66\xea\x18\x00\xff\xff\x08\x00" + // ljmpl $8, $0xffff0018 ; protected mode
	"\x66\xb8\x10\x00" + // movw $16, %ax
	"\x8e\xd8" + // movw %ax, %ds
	"\xc7\x05\x00\x10\x00\x00\x03\x20\x00\x00" + // movl $0x2003, 0x1000 ; PML4[0] → PDPT at 0x2000
	"\xc7\x05\x18\x20\x00\x00\x03\x30\x00\x00" + // movl $0x3003, 0x2018 ; PDPT[3] → PD at 0x3000
	"\xc7\x05\xf8\x3f\x00\x00\x83\x00\xe0\xff" + // movl $0xffe00083, 0x3ff8 ; PD[511]: this ROM, a 2 MiB page
	"\x0f\x20\xe0" + // movl %cr4, %eax
	"\x0c\x20" + // orb $0x20, %al ; CR4.PAE
	"\x0f\x22\xe0" + // movl %eax, %cr4
	"\xb8\x00\x10\x00\x00" + // movl $0x1000, %eax
	"\x0f\x22\xd8" + // movl %eax, %cr3
	"\xb9\x80\x00\x00\xc0" + // movl $0xc0000080, %ecx ; EFER
	"\x0f\x32" + // rdmsr
	"\x80\xcc\x01" + // orb $1, %ah ; EFER.LME
	"\x0f\x30" + // wrmsr
	"\x0f\x20\xc0" + // movl %cr0, %eax
	"\x0d\x00\x00\x00\x80" + // orl $0x80000000, %eax ; CR0.PG
	"\x0f\x22\xc0" + // movl %eax, %cr0
	"\xea\x6a\x00\xff\xff\x18\x00" + // ljmpl $24, $0xffff006a ; long mode
	"\x48\xb8\x00\x00\x00\x00\x2a\x00\x00\x00" + // movq $0x2a00000000, %rax ; needs 64-bit registers
	"\x48\xc1\xe8\x20" + // shrq $32, %rax
	"\xe6\xf4" + // outb %al, $0xf4 ; isa-debug-exit: QEMU exits with 0x2a<<1 | 1
	"\xf4" + // hlt
	"\xeb\xfd" + // jmp .-1
	"\x0f\x1f\x00" + // (fill)
	"\x00\x00\x00\x00\x00\x00\x00\x00" + // gdt: null
	"\xff\xff\x00\x00\x00\x9b\xcf\x00" + // 32-bit code, base 0, limit 4 GiB
	"\xff\xff\x00\x00\x00\x93\xcf\x00" + // 32-bit data
	"\xff\xff\x00\x00\x00\x9b\xaf\x00" + // 64-bit code
	"\x1f\x00\x80\x00\xff\xff" // gdtr: limit 31, base 0xffff0080

const (
	romSize     = 64 << 10
	resetVector = romSize - 16   // where a processor begins (Intel SDM volume 3, 10.1.4)
	resetJump   = "\xe9\x0d\x00" // jmp to the beginning of the ROM
	tinyStatus  = 0x2a<<1 | 1
)

// bootTiny boots the tiny guest with that QEMU and accelerator.
func bootTiny(ctx context.Context, qemu, accel string) error {
	rom := bytes.Repeat([]byte{0xf4}, romSize) // hlt
	copy(rom, tinyGuest)
	copy(rom[resetVector:], resetJump)
	dir, err := os.MkdirTemp("", "banger-kvm-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "rom")
	if err := os.WriteFile(path, rom, 0o600); err != nil {
		return err
	}
	err = Run(ctx, Command{Argv: []string{
		qemu, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-M", "microvm", "-accel", accel, "-m", "16",
		"-bios", path, "-device", "isa-debug-exit,iobase=0xf4,iosize=4",
	}})
	var exit *ExitError
	switch {
	case errors.As(err, &exit) && exit.Code == tinyStatus:
		return nil
	case err == nil:
		return errors.New("it reset")
	}
	return err
}
