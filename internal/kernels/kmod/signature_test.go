package kmod

import (
	"bytes"
	"testing"
)

func TestUnsigned(t *testing.T) {
	body := []byte("\x7fELF and the rest of a module")
	// PKCS#7, as sign-file writes it: no signer, no key id, 5 bytes of signature.
	info := []byte{0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 5}
	signed := bytes.Join([][]byte{body, []byte("5byte"), info, []byte(signatureMark)}, nil)
	old := bytes.Join([][]byte{body, []byte("me"), []byte("key"), []byte("5byte"), {0, 0, 0, 2, 3, 0, 0, 0, 0, 0, 0, 5}, []byte(signatureMark)}, nil)
	wild := bytes.Join([][]byte{body, {0, 0, 2, 0, 0, 0, 0, 0, 0xff, 0, 0, 0}, []byte(signatureMark)}, nil)
	for _, c := range []struct {
		name         string
		module, want []byte
	}{
		{"the signature goes", signed, body},
		{"signer and key id of the old form go with it", old, body},
		{"a module without one stays", body, body},
		{"so does one that claims more than there is", wild, wild},
		{"and a mark alone", []byte(signatureMark), []byte(signatureMark)},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := Unsigned(c.module); !bytes.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}
