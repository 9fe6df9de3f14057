package source

import (
	"cmp"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/banger-vm/banger/internal/workspace/gitcmd"
)

// config is git's configuration of all levels, the last value of each variable. Section and variable are in lower case,
// as `git config --list` prints them; a subsection keeps its case.
type config map[string]string

func parseConfig(list []string) config {
	c := make(config)
	for _, item := range list {
		key, value, ok := strings.Cut(item, "\n")
		if !ok {
			value = "true" // a variable without a value (git-config(1))
		}
		c[key] = value
	}
	return c
}

func (c config) get(key string) string { return c[key] }

func (c config) is(key string) bool {
	switch strings.ToLower(c[key]) {
	case "true", "yes", "on", "1":
		return true
	}
	return false
}

// not reports whether key is set to false.
func (c config) not(key string) bool {
	v, ok := c[key]
	switch strings.ToLower(v) {
	case "false", "no", "off", "0", "":
		return ok
	}
	return false
}

// filters returns the names of the configured filter drivers, always with lfs.
func (c config) filters() []string { return gitcmd.FilterNames(slices.Collect(maps.Keys(c))) }

// userFile returns the path that key names, or else the default below the user's git configuration.
func (c config) userFile(key, name string) string {
	home, _ := os.UserHomeDir() // without one there is no such file either
	if path := c[key]; path != "" {
		if rest, ok := strings.CutPrefix(path, "~/"); ok {
			return filepath.Join(home, rest)
		}
		return path
	}
	return filepath.Join(cmp.Or(os.Getenv("XDG_CONFIG_HOME"), filepath.Join(home, ".config")), "git", name)
}

// stripPassword takes user and password out of an HTTP URL, and the password out of any other. What is no URL, such as
// host:path and a local path, stays as it is.
func stripPassword(remote string) string {
	u, err := url.Parse(remote)
	if err != nil || u.Scheme == "" || u.Host == "" {
		if i, j := strings.Index(remote, "://"), strings.LastIndexByte(remote, '@'); i >= 0 && j > i {
			return remote[:i+3] + remote[j+1:] // one that net/url does not understand
		}
		return remote
	}
	if _, has := u.User.Password(); has && u.Scheme != "http" && u.Scheme != "https" {
		u.User = url.User(u.User.Username())
		return u.String()
	}
	if u.User != nil && (u.Scheme == "http" || u.Scheme == "https") {
		u.User = nil
		return u.String()
	}
	return remote
}

// guestConfig is the text of .git/config in the guest.
func (s *Source) guestConfig() string {
	r, c := s.repo, s.repo.config
	var w configWriter
	w.section("core", "")
	w.set("repositoryformatversion", "0")
	w.set("filemode", "true")
	w.set("bare", "false")
	w.set("logallrefupdates", "true")
	for _, key := range []string{"autocrlf", "eol", "symlinks"} {
		w.set(key, c.get("core."+key))
	}
	if r.Sparse {
		w.set("sparseCheckout", "true")
		w.set("sparseCheckoutCone", c.get("core.sparsecheckoutcone"))
	}
	if s.hasAttributes() {
		w.set("attributesFile", ".git/"+globalAttributes)
	}
	w.section("user", "")
	w.set("name", r.UserName)
	w.set("email", r.UserEmail)
	w.section("gc", "") // a guest lives for hours, and repacking in an emulated one takes minutes
	w.set("auto", "0")
	w.section("banger", "")
	w.set("base", r.Commit)
	for _, name := range c.filters() {
		w.section("filter", name)
		for _, key := range []string{"process", "clean", "smudge"} {
			w.empty(key)
		}
		w.set("required", "false")
	}
	for _, name := range s.remotes() {
		w.section("remote", name)
		w.set("url", stripPassword(c.get("remote."+name+".url")))
		w.set("pushurl", stripPassword(c.get("remote."+name+".pushurl")))
		w.set("fetch", "+refs/heads/*:refs/remotes/"+name+"/*")
	}
	if remote := c.get("branch." + r.local + ".remote"); remote != "" && r.Branch == r.local && r.local != "" {
		w.section("branch", r.Branch)
		w.set("remote", remote)
		w.set("merge", c.get("branch."+r.local+".merge"))
	}
	return w.String()
}

// remotes returns the names of the remotes that go along: origin, and the one that the branch follows.
func (s *Source) remotes() []string {
	var names []string
	for _, name := range []string{"origin", s.repo.config.get("branch." + s.repo.local + ".remote")} {
		if s.repo.config.get("remote."+name+".url") != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// configWriter writes git's configuration format (git-config(1), "Syntax").
type configWriter struct{ strings.Builder }

var (
	quoteSection = strings.NewReplacer(`\`, `\\`, `"`, `\"`)
	quoteValue   = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\t", `\t`, "\b", `\b`)
)

func (w *configWriter) section(name, sub string) {
	if sub != "" {
		sub = ` "` + quoteSection.Replace(sub) + `"`
	}
	w.WriteString("[" + name + sub + "]\n")
}

// set writes a variable, unless value is empty.
func (w *configWriter) set(key, value string) {
	if value != "" {
		w.WriteString("\t" + key + ` = "` + quoteValue.Replace(value) + "\"\n")
	}
}

// empty writes a variable that is set to nothing.
func (w *configWriter) empty(key string) { w.WriteString("\t" + key + " = \n") }
