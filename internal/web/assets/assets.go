// Package assets holds what the pages of the web UI are made of beside HTML: style and script of our own, and xterm.js, which
// scripts/web-assets fetches from npm at a pinned version and sum, with its licences.
package assets

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"net/http"
	"path"
	"strings"
)

//go:embed files
var files embed.FS

// Handler serves /assets/NAME. A browser asks again for what it has, and is told in a few bytes that it is still right.
func Handler() (http.Handler, error) {
	entries, err := files.ReadDir("files")
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	for _, e := range entries {
		data, err := files.ReadFile("files/" + e.Name())
		if err != nil {
			return nil, err
		}
		mux.Handle("GET /assets/"+e.Name(), asset(e.Name(), data))
	}
	return mux, nil
}

func asset(name string, data []byte) http.Handler {
	sum := sha256.Sum256(data)
	tag := `"` + hex.EncodeToString(sum[:8]) + `"`
	kind := map[string]string{".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}[path.Ext(name)]
	if kind == "" {
		kind = "text/plain"
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "private, no-cache")
		w.Header().Set("ETag", tag)
		if strings.Contains(r.Header.Get("If-None-Match"), tag) {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		w.Header().Set("Content-Type", kind+"; charset=utf-8")
		w.Write(data) //nolint:errcheck // the browser has left
	})
}
