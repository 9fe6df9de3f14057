// Program rpcdoc writes the contract of the daemon as documents: docs/RPC.md for people, docs/openrpc.json for programs. It
// takes methods, classes, types and payloads from the method table, what they mean from the Go comments of package api and
// those below it, and the codes from the tables of api and errkind. `make docs` runs it; no shipped program contains it.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/banger-vm/banger/internal/rpcserver"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: rpcdoc ROOT-OF-THE-SOURCE")
		os.Exit(64)
	}
	if err := write(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "rpcdoc:", err)
		os.Exit(1)
	}
}

func write(root string) error {
	files, err := render(root)
	if err != nil {
		return err
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(root, name), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// render returns the documents by their paths below root, the directory of the module's source.
func render(root string) (map[string][]byte, error) {
	src, err := readSource(root, "api", "api/guestapi", "api/frame")
	if err != nil {
		return nil, err
	}
	c := newContract(rpcserver.Methods(rpcserver.Services{}), src)
	var spec bytes.Buffer
	enc := json.NewEncoder(&spec)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(openRPC(c)); err != nil {
		return nil, err
	}
	text, err := markdown(c)
	if err != nil {
		return nil, err
	}
	return map[string][]byte{"docs/openrpc.json": spec.Bytes(), "docs/RPC.md": text}, nil
}
