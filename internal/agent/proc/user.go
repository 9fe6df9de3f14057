package proc

import (
	"bufio"
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

// User is an account of the guest, from passwd(5) and group(5).
type User struct {
	Name   string
	UID    uint32
	GID    uint32
	Groups []uint32 // supplementary
	Home   string
	Shell  string
}

// The account files. The agent reads them itself: it is static, and a call of libc's would find no NSS modules either.
const (
	passwdFile = "/etc/passwd"
	groupFile  = "/etc/group"
)

// LookupUser returns the account that spec names: a name or a uid, and optionally a colon and the name or gid of the group
// to use instead of the account's. Empty is root. A uid without an account is fine: its group is 0, its home "/". So is
// root in a guest without account files. Otherwise an unknown name is an error of kind not-found.
func LookupUser(spec string) (User, error) { return lookupUser(spec, passwdFile, groupFile) }

func lookupUser(spec, passwd, group string) (User, error) {
	name, groupName, hasGroup := strings.Cut(spec, ":")
	if name == "" {
		name = "root"
	}
	u, err := findUser(name, passwd)
	if err != nil {
		return User{}, err
	}
	if !hasGroup {
		u.Groups, err = groupsOf(u, group)
		return u, err
	}
	u.GID, err = findGroup(groupName, group)
	return u, err
}

// findUser looks name up; a name that is all digits is also a uid.
func findUser(name, passwd string) (User, error) {
	uid, numErr := strconv.ParseUint(name, 10, 32)
	var found *User
	err := eachLine(passwd, 7, func(f []string) bool {
		id, err1 := strconv.ParseUint(f[2], 10, 32)
		gid, err2 := strconv.ParseUint(f[3], 10, 32)
		if err1 != nil || err2 != nil || (f[0] != name && (numErr != nil || id != uid)) {
			return true
		}
		found = &User{Name: f[0], UID: uint32(id), GID: uint32(gid), Home: f[5], Shell: f[6]}
		return false
	})
	switch {
	case err != nil:
		return User{}, err
	case found == nil && name == "root":
		found = &User{Name: "root", Home: "/root"}
	case found == nil && numErr == nil:
		found = &User{Name: name, UID: uint32(uid)}
	case found == nil:
		return User{}, errkind.WithHint(errkind.New(api.KindNotFound, "no user %q in the guest", name),
			"name a user from the guest's /etc/passwd, or a uid")
	}
	if found.Home == "" {
		found.Home = "/"
	}
	if found.Shell == "" {
		found.Shell = "/bin/sh" // passwd(5)
	}
	return *found, nil
}

func findGroup(name, group string) (uint32, error) {
	gid, numErr := strconv.ParseUint(name, 10, 32)
	if numErr == nil {
		return uint32(gid), nil
	}
	var found bool
	err := eachLine(group, 3, func(f []string) bool {
		id, err := strconv.ParseUint(f[2], 10, 32)
		if err == nil && f[0] == name {
			gid, found = id, true
		}
		return !found
	})
	if err == nil && !found {
		err = errkind.WithHint(errkind.New(api.KindNotFound, "no group %q in the guest", name),
			"name a group from the guest's /etc/group, or a gid")
	}
	return uint32(gid), err
}

func groupsOf(u User, group string) ([]uint32, error) {
	var groups []uint32
	err := eachLine(group, 4, func(f []string) bool {
		id, err := strconv.ParseUint(f[2], 10, 32)
		if err == nil && uint32(id) != u.GID && slices.Contains(strings.Split(f[3], ","), u.Name) {
			groups = append(groups, uint32(id))
		}
		return true
	})
	return groups, err
}

// eachLine calls fn with the fields of each line that has at least n, until it returns false. A missing file is empty.
func eachLine(path string, n int, fn func(fields []string) bool) error {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); ; {
		if !sc.Scan() {
			return sc.Err()
		}
		if fields := strings.Split(sc.Text(), ":"); len(fields) >= n && !fn(fields) {
			return nil
		}
	}
}

// credential is what a fork needs to become u: nothing for nil, and for the agent's own account, which an ordinary user
// may not even ask for.
func (u *User) credential() *syscall.Credential {
	if u == nil {
		return nil
	}
	if int(u.UID) == os.Getuid() && int(u.GID) == os.Getgid() && (len(u.Groups) == 0 || u.UID != 0) {
		return nil
	}
	return &syscall.Credential{Uid: u.UID, Gid: u.GID, Groups: u.Groups}
}
