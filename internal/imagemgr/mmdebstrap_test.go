package imagemgr

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestHostSources(t *testing.T) {
	etc := t.TempDir()
	list, sources := filepath.Join(etc, "sources.list"), filepath.Join(etc, "sources.list.d", "debian.sources")
	write := func(path, text string) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	check := func(name, suite string, want ...string) {
		t.Run(name, func(t *testing.T) {
			if got := hostSources(etc, suite); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
	check("a host without any", "bookworm")
	write(list, "# deb http://mirror.test/debian bookworm main\ndeb http://mirror.test/debian trixie main\n")
	write(sources, "Types: deb\nURIs: http://mirror.test/debian\nSuites: bookworm bookworm-updates\n")
	check("files that name the suite are taken", "bookworm", sources)
	check("each for its own", "trixie", list)
	check("part of a word is not enough", "book")
}

func TestBootstrapLog(t *testing.T) {
	rec := &recorder{t: t}
	var copied strings.Builder
	l := &bootstrapLog{report: rec, log: &copied}
	text := "I: running apt-get update...\nGet:1 x\nI: downloading packages with apt...\n0 upgraded, 2 newly installed, 0 to remove\nGet:1 a\nGet:2 b\n" +
		"I: installing essential packages...\rSetting up a (1) ...\nSetting up b (1) ...\nSetting up b (1) ...\nE: first\nI: whatever\nE: second\n"
	for i := range len(text) {
		if _, err := l.Write([]byte(text[i : i+1])); err != nil {
			t.Fatal(err)
		}
	}
	if got := strings.Join(rec.names, ", "); got != "fetch package lists, download packages, configure base packages" {
		t.Errorf("stages %s", got)
	}
	if rec.most["packages"] != 2 || l.cause != "first" || copied.String() != text {
		t.Errorf("progress %v, cause %q", rec.most, l.cause)
	}
}
