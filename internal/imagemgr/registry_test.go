package imagemgr

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/host"
	"github.com/banger-vm/banger/internal/opstate"
)

// TestDebianRegistry makes an image with umoci that has all that a file system can hold, in layers that take back what others brought; carries it
// through Debian's registry server with skopeo; and compares the result, mounted, with what umoci unpacks, file by file.
func TestDebianRegistry(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: makes devices and mounts file systems")
	}
	for _, program := range []string{"umoci", "skopeo", "docker-registry", "setfattr"} {
		if _, err := host.LookPath(program); err != nil {
			t.Skip(err)
		}
	}
	m := pullManager(t)
	dir := t.TempDir()
	makeImage(t, dir)
	want := describe(t, filepath.Join(dir, "ref/rootfs"))
	if len(want) < 40 {
		t.Fatalf("umoci unpacked %d files only", len(want))
	}
	reg := debianRegistry(t)
	runIn(t, dir, "skopeo", "copy", "--dest-tls-verify=false", "oci:oci:app", "docker://"+reg+"/team/app:1")
	img, err := m.Pull(t.Context(), api.ImagePull{Ref: reg + "/team/app:1", Name: "it"}, opstate.Discard)
	if err != nil {
		t.Fatal(err)
	}
	isBanger := func(line string) bool { // made for a guest to begin with
		return slices.ContainsFunc([]string{"/dev ", "/proc ", "/sys ", "/run ", "/tmp ", "/etc/machine-id "}, func(p string) bool { return strings.HasPrefix(line, p) })
	}
	if d := cmp.Diff(want, slices.DeleteFunc(describe(t, mounted(t, img)), isBanger)); d != "" {
		t.Errorf("umoci has -, banger +:\n%s", d)
	}
	if img.Run.User != "app" || img.Run.Dir != "/srv" || !slices.Contains(img.Run.Env, "GREETING=hello") {
		t.Errorf("configuration %+v", img.Run)
	}
}

func runIn(t *testing.T, dir string, argv ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HOME="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%q: %v\n%s", argv, err, out)
	}
}

// first and second are what the layers are made by, in the directory of the root file system.
const (
	first = `mkdir -p bin etc root/.config srv/data/deep srv/gone usr/lib var/empty
		printf "root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/srv:/bin/sh\n" > etc/passwd; echo secret > etc/shadow; chmod 640 etc/shadow; chown 0:42 etc/shadow
		echo x > bin/su; chmod 4755 bin/su; ln bin/su bin/su-again; ln -s su bin/relative; ln -s /etc/passwd bin/absolute; ln -s ../../../../etc bin/out
		ln -s usr/lib lib; mknod srv/null c 1 3; mknod srv/big b 259 70000; mkfifo srv/pipe; chmod 1777 var/empty
		head -c 3000000 /dev/urandom > srv/data/random; truncate -s 64M srv/data/sparse; echo end >> srv/data/sparse; : > srv/data/nothing
		echo x > "$(printf 'n%.0s' $(seq 255))"; d=srv/data; for i in 1 2 3 4; do d=$d/$(printf 'd%.0s' $(seq 120)); mkdir $d; done; echo deep > $d/f
		ln -s $(printf 't%.0s' $(seq 500)) srv/long; echo cap > bin/ping; setfattr -n security.capability -v 0x0100000200200000000000000000000000000000 bin/ping
		setfattr -n user.note -v hello bin/ping; echo a > srv/gone/a; echo b > srv/gone/b; echo h > root/.profile; ln root/.profile root/.again
		for i in $(seq 300); do echo $i > srv/data/deep/$i; done; chown -R 1000:1000 srv/data/deep; echo 'ünï cödé' > 'srv/näme with space'
		touch -d '1985-10-26 01:21:00.123456789 UTC' etc/passwd; touch -d '2200-01-01 UTC' etc/shadow; echo f > becomes-dir; mkdir becomes-file; echo x > becomes-file/x`
	second = `rm -r srv/gone bin/su-again root/.again srv/data/nothing; echo new > root/.new; rm becomes-dir; mkdir becomes-dir; echo y > becomes-dir/y
		rm -r becomes-file; echo z > becomes-file; echo changed > etc/shadow; rm srv/data/deep/1*; mkdir srv/gone; echo c > srv/gone/c; chmod 700 var/empty
		rm bin/absolute; ln -s /nowhere bin/absolute; echo in > lib/added`
)

func makeImage(t *testing.T, dir string) {
	t.Helper()
	runIn(t, dir, "umoci", "init", "--layout", "oci")
	runIn(t, dir, "umoci", "new", "--image", "oci:app")
	for i, script := range []string{first, second} {
		bundle := fmt.Sprint("bundle", i)
		runIn(t, dir, "umoci", "unpack", "--image", "oci:app", bundle)
		runIn(t, filepath.Join(dir, bundle, "rootfs"), "sh", "-e", "-c", script)
		runIn(t, dir, "umoci", "repack", "--image", "oci:app", bundle)
	}
	runIn(t, dir, "umoci", "config", "--image", "oci:app", "--config.user", "app", "--config.workingdir", "/srv", "--config.env", "GREETING=hello",
		"--config.entrypoint", "/bin/sh")
	runIn(t, dir, "umoci", "unpack", "--image", "oci:app", "ref")
}

// debianRegistry starts Debian's registry server on loopback and returns its address.
func debianRegistry(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	dir := t.TempDir()
	config := fmt.Sprintf("version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: %s\nhttp:\n  addr: %s\n", dir, addr)
	path := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("docker-registry", "serve", path)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() }) //nolint:errcheck // it was killed
	for range 600 {
		if resp, err := http.Get("http://" + addr + "/v2/"); err == nil {
			resp.Body.Close()
			return addr
		}
		<-time.After(50 * time.Millisecond)
	}
	t.Fatal("the registry does not answer")
	return ""
}

// mounted mounts an image's file systems as a guest has them.
func mounted(t *testing.T, img banger.Image) string {
	t.Helper()
	dir := t.TempDir()
	for _, m := range [][2]string{{img.Rootfs, dir}, {img.WorkSeed, filepath.Join(dir, "root")}} {
		if out, err := exec.CommandContext(t.Context(), "mount", "-o", "loop,ro,noload", m[0], m[1]).CombinedOutput(); err != nil {
			t.Skipf("mount a file system: %v: %s", err, out)
		}
		t.Cleanup(func() { unix.Unmount(m[1], 0) }) //nolint:errcheck // a mount that stays fails the removal of the directory
	}
	return dir
}

// describe returns a line for each file below dir, with all that can be known of it.
func describe(t *testing.T, dir string) []string {
	t.Helper()
	var lines []string
	names := map[[2]uint64]string{} // the first name of each file
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		rel := strings.TrimPrefix(path, dir)
		if err != nil || rel == "" || d.Name() == "lost+found" {
			return err
		}
		var st syscall.Stat_t
		if err := syscall.Lstat(path, &st); err != nil {
			return err
		}
		line := fmt.Sprintf("%s mode=%o owner=%d:%d", rel, st.Mode, st.Uid, st.Gid)
		if !d.IsDir() {
			id := [2]uint64{st.Dev, st.Ino}
			if names[id] == "" {
				names[id] = rel
			}
			line += fmt.Sprintf(" links=%d file=%s rdev=%d size=%d", st.Nlink, names[id], st.Rdev, st.Size)
		}
		line += fmt.Sprintf(" time=%d.%d", st.Mtim.Sec, st.Mtim.Nsec)
		switch st.Mode & syscall.S_IFMT {
		case syscall.S_IFLNK:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			line += " to=" + target
		case syscall.S_IFREG:
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" content=%x", sha256.Sum256(b))
		}
		lines = append(lines, line+xattrs(t, path))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

func xattrs(t *testing.T, path string) (text string) {
	t.Helper()
	list, value := make([]byte, 4096), make([]byte, 4096)
	n, err := unix.Llistxattr(path, list)
	if err != nil {
		t.Fatal(err)
	}
	keys := strings.Split(strings.TrimRight(string(list[:n]), "\x00"), "\x00")
	slices.Sort(keys)
	for _, key := range keys {
		if key == "" || strings.HasPrefix(key, "user.umoci") {
			continue
		}
		n, err := unix.Lgetxattr(path, key, value)
		if err != nil {
			t.Fatal(err)
		}
		text += fmt.Sprintf(" %s=%x", key, value[:n])
	}
	return text
}
