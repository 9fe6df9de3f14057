package steps

import (
	"strings"
	"testing"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

func good() api.ImageRecipe {
	return api.ImageRecipe{
		Name: "x", Base: "debian", Env: []string{"A=1"}, Files: []api.RecipeFile{{Path: "/etc/motd", Mode: 0o644, Content: []byte("hi")}},
		Steps:   []api.RecipeStep{{Run: "make", Secrets: []string{"TOKEN"}}, {Run: "true"}},
		Secrets: []api.RecipeSecret{{ID: "TOKEN", Value: []byte("s3cr3t\n")}},
	}
}

func TestCheck(t *testing.T) {
	if err := Check(good()); err != nil {
		t.Fatal(err)
	}
	for says, spoil := range map[string]func(p *api.ImageRecipe){
		"names no base image":                      func(p *api.ImageRecipe) { p.Base = "" },
		`bad environment entry "1=A"`:              func(p *api.ImageRecipe) { p.Env = []string{"1=A"} },
		`the path "etc/motd"`:                      func(p *api.ImageRecipe) { p.Files[0].Path = "etc/motd" },
		`the path "/etc/../motd"`:                  func(p *api.ImageRecipe) { p.Files[0].Path = "/etc/../motd" },
		"more than permissions":                    func(p *api.ImageRecipe) { p.Files[0].Mode = 0o100644 },
		"step 2 runs nothing":                      func(p *api.ImageRecipe) { p.Steps[1].Run = " \n" },
		`step 1 wants the secret "TOKEN"`:          func(p *api.ImageRecipe) { p.Secrets = nil },
		`no step wants the secret "TOKEN"`:         func(p *api.ImageRecipe) { p.Steps[0].Secrets = nil },
		`the secret "TOKEN" has a zero byte`:       func(p *api.ImageRecipe) { p.Secrets[0].Value = []byte("a\x00") },
		`the id "A B" of a secret is no name of a`: func(p *api.ImageRecipe) { p.Secrets[0].ID, p.Steps[0].Secrets[0] = "A B", "A B" },
	} {
		p := good()
		spoil(&p)
		if err := Check(p); !errkind.Is(err, api.KindInvalid) || !strings.Contains(err.Error(), says) {
			t.Errorf("want %q, got %v", says, err)
		}
	}
}

func TestKey(t *testing.T) {
	key := Key(good(), "base")
	for what, change := range map[string]func(p *api.ImageRecipe){
		"a file": func(p *api.ImageRecipe) { p.Files[0].Content = []byte("ho") },
		"a mode": func(p *api.ImageRecipe) { p.Files[0].Mode = 0o600 },
		"a step": func(p *api.ImageRecipe) { p.Steps[1].Run = "false" },
		"env":    func(p *api.ImageRecipe) { p.Env = nil },
		"user":   func(p *api.ImageRecipe) { p.User = "ann" },
		"size":   func(p *api.ImageRecipe) { p.RootSize = 1 << 40 },
	} {
		p := good()
		change(&p)
		if Key(p, "base") == key {
			t.Errorf("another %s, the same key", what)
		}
	}
	if Key(good(), "other") == key {
		t.Error("another base, the same key")
	}
	p := good()
	p.Secrets[0].Value = nil
	if Key(p, "base") != key {
		t.Error("the key depends on a secret's value")
	}
}

func TestSecretsAreOfTheirStep(t *testing.T) {
	p := good()
	if got := strings.Join(environment(p, p.Steps[0]), " "); got != "A=1 TOKEN=s3cr3t" {
		t.Errorf("the step that wants it has %q", got)
	}
	if got := strings.Join(environment(p, p.Steps[1]), " "); got != "A=1" {
		t.Errorf("the other has %q", got)
	}
}
