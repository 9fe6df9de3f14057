package config

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/banger-vm/banger/internal/banger"
)

// Every name that paths.go makes has a row in docs/ONDISK.md, in the section of its directory.
func TestEveryPathIsInTheDocument(t *testing.T) {
	doc, err := os.ReadFile("../../docs/ONDISK.md")
	if err != nil {
		t.Fatal(err)
	}
	p := Paths{State: "STATE", Run: "RUN", Cache: "CACHE", Etc: "ETC"}
	made := 0
	for i := range reflect.TypeFor[Paths]().NumMethod() {
		name := reflect.TypeFor[Paths]().Method(i).Name
		var path string
		switch fn := reflect.ValueOf(p).Method(i).Interface().(type) {
		case func() string:
			path = fn()
		case func(banger.VMID) string:
			path = fn("ID")
		default:
			continue // makes no name
		}
		dir, below, isPath := strings.Cut(path, "/")
		if !isPath {
			continue // a control group's name
		}
		made++
		_, section, _ := strings.Cut(string(doc), "\n## "+dir)
		section, _, _ = strings.Cut(section, "\n## ")
		if !strings.Contains(section, "`"+below+"`") && !strings.Contains(section, "`"+below+"/") {
			t.Errorf("docs/ONDISK.md, section %s, does not mention %s, which Paths.%s makes", dir, below, name)
		}
	}
	if made < 10 {
		t.Errorf("only %d methods of Paths make a name", made)
	}
}
