package kmod

import (
	"bytes"
	"encoding/binary"
)

// A signed module ends with the signature, a struct module_signature and a mark (the kernel's linux/module_signature.h). The
// struct has the lengths of what precedes it.
const (
	signatureMark    = "~Module signature appended~\n"
	signatureInfo    = 12 // length of the struct
	signerLenOffset  = 3  // one byte
	keyLenOffset     = 4  // one byte
	sigLenOffset     = 8  // four bytes, big endian
	signatureTrailer = signatureInfo + len(signatureMark)
)

// Unsigned returns the module without its signature. One that has none, or whose end makes no sense, is returned as it is.
func Unsigned(module []byte) []byte {
	if len(module) < signatureTrailer || !bytes.HasSuffix(module, []byte(signatureMark)) {
		return module
	}
	rest := module[:len(module)-signatureTrailer]
	info := module[len(rest):]
	n := int(info[signerLenOffset]) + int(info[keyLenOffset]) + int(binary.BigEndian.Uint32(info[sigLenOffset:]))
	if n > len(rest) {
		return module
	}
	return rest[:len(rest)-n]
}
