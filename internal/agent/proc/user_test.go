package proc

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

const (
	testPasswd = `root:x:0:0:root:/root:/bin/bash
# a comment
broken:x:zero:0
web:x:1000:1000:Web,,,:/home/web:/bin/sh
bare:x:1001:1001::  :
nohome:x:1002:1002:::
`
	testGroup = `root:x:0:
sudo:x:27:web,other
docker:x:999:other,web
web:x:1000:web
`
)

func TestLookupUser(t *testing.T) {
	dir := t.TempDir()
	passwd, group := filepath.Join(dir, "passwd"), filepath.Join(dir, "group")
	for path, text := range map[string]string{passwd: testPasswd, group: testGroup} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	root := User{Name: "root", Home: "/root", Shell: "/bin/bash"}
	web := User{Name: "web", UID: 1000, GID: 1000, Groups: []uint32{27, 999}, Home: "/home/web", Shell: "/bin/sh"}
	webAs := func(gid uint32) User { u := web; u.GID, u.Groups = gid, nil; return u }
	for spec, want := range map[string]User{
		"":         root,
		"root":     root,
		"0":        root,
		"web":      web,
		"1000":     web,
		"web:sudo": webAs(27),
		"web:5":    webAs(5),
		":sudo":    {Name: "root", GID: 27, Home: "/root", Shell: "/bin/bash"},
		"4242":     {Name: "4242", UID: 4242, Home: "/", Shell: "/bin/sh"},
		"nohome":   {Name: "nohome", UID: 1002, GID: 1002, Home: "/", Shell: "/bin/sh"},
	} {
		got, err := lookupUser(spec, passwd, group)
		if err != nil {
			t.Errorf("%q: %v", spec, err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%q: -want +got\n%s", spec, d)
		}
	}
	for _, spec := range []string{"nobody-here", "web:nogroup", "broken"} {
		if _, err := lookupUser(spec, passwd, group); !errkind.Is(err, api.KindNotFound) || errkind.Hint(err) == "" {
			t.Errorf("%q: %v", spec, err)
		}
	}
	t.Run("root exists without account files", func(t *testing.T) {
		got, err := lookupUser("", filepath.Join(dir, "no"), filepath.Join(dir, "no"))
		want := User{Name: "root", Home: "/root", Shell: "/bin/sh"}
		if d := cmp.Diff(want, got); err != nil || d != "" {
			t.Errorf("%v\n%s", err, d)
		}
	})
}

func TestMergeEnv(t *testing.T) {
	got, err := MergeEnv([]string{"PATH=/bin", "A=1"}, []string{"A=2", "B="}, []string{"PATH=/x", "C=a=b"})
	if want := []string{"PATH=/x", "A=2", "B=", "C=a=b"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v", got, err)
	}
	for _, bad := range []string{"", "A", "=x", "A=\x00"} {
		if _, err := MergeEnv([]string{bad}); !errkind.Is(err, api.KindInvalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestCredential(t *testing.T) {
	uid, gid := uint32(os.Getuid()), uint32(os.Getgid())
	if c := (*User)(nil).credential(); c != nil {
		t.Errorf("nobody asked for: %+v", c)
	}
	if c := (&User{UID: uid, GID: gid}).credential(); c != nil {
		t.Errorf("our own account: %+v", c)
	}
	if c := (&User{UID: uid + 1, GID: 7, Groups: []uint32{8}}).credential(); c == nil || c.Uid != uid+1 || c.Gid != 7 || len(c.Groups) != 1 {
		t.Errorf("another account: %+v", c)
	}
}
