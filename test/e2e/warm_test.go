package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/crypto/ssh"
)

// warm restarts the shared house's daemon with warm starts, until the end of the test.
func warm(t *testing.T, points string) house {
	t.Helper()
	h := guests(t)
	h.must(t, "daemon", "stop")
	t.Setenv("BANGER_WARM_STARTS", "true")
	t.Setenv("BANGER_FAILPOINTS", points)
	t.Cleanup(func() {
		h.banger("template", "prune", "--all") //nolint:errcheck // what is left is seen
		h.must(t, "daemon", "stop")
	})
	return h
}

// template makes the template of small VMs and returns its directory.
func (h house) template(t *testing.T) string {
	t.Helper()
	return filepath.Join(h.root, "state/templates", h.must(t, "template", "build", "--quiet", "--memory", "256M"))
}

// startOf is how a VM was started last.
func (h house) startOf(t *testing.T, name string) string {
	t.Helper()
	return h.field(t, name, "{{.Start}} {{.StartWhy}}")
}

// killVMM kills the one QEMU whose sockets are below dir of the house.
func (h house) killVMM(t *testing.T, dir string) {
	t.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var killed int
	for _, path := range lines {
		line, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(line, []byte(filepath.Join(h.root, dir))) || !bytes.Contains(line, []byte("qemu-system")) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err == nil {
			err = syscall.Kill(pid, syscall.SIGKILL)
		}
		if err != nil {
			t.Fatal(err)
		}
		killed++
	}
	if killed != 1 {
		t.Fatalf("%d machines have been killed", killed)
	}
}

func TestWarmStart(t *testing.T) {
	h := warm(t, "")
	dir := h.template(t)
	h.must(t, "vm", "create", "--start", "--quiet", "--name", "w1", "--memory", "256M", "--disk-size", "20G", "--root-size", "12G", "--env", "GREETING=hi")
	defer h.must(t, "vm", "delete", "--force", "w1")
	t.Run("a VM that begins with a template is itself", func(t *testing.T) {
		if got := h.startOf(t, "w1"); got != "warm" {
			t.Fatalf("it was started %s", got)
		}
		got := h.must(t, "exec", "w1", "--", "sh", "-c", `hostname; echo $GREETING; cat /etc/hostname; cat /sys/class/net/eth0/address; grep -c w1 /etc/hosts
			df --block-size=1G --output=size / /root | tail -n +2 | tr -d ' '; test $(date +%s) -gt 1700000000 && echo now`)
		want := strings.Join([]string{"w1", "hi", "w1", h.field(t, "w1", "{{.MAC}}"), "1", "12", "20", "now"}, "\n")
		if got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	})
	t.Run("it reaches the network, and ssh reaches it", func(t *testing.T) {
		h.must(t, "exec", "w1", "--", "ping", "-c", "1", "-W", "20", "10.0.2.2") // the gateway, which answers itself
		if got := h.must(t, "ssh", "w1", "--", "hostname"); got != "w1" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("it needs the template no more, and its next start is a boot with what it had written", func(t *testing.T) {
		h.must(t, "exec", "w1", "--", "sh", "-c", "echo kept > /kept; echo kept > /root/kept")
		h.must(t, "vm", "stop", "w1")
		h.must(t, "template", "delete", filepath.Base(dir))
		h.must(t, "vm", "start", "w1")
		if got := h.startOf(t, "w1"); got != "cold its disks have been used" {
			t.Errorf("it was started %s", got)
		}
		if got := h.must(t, "exec", "w1", "--", "cat", "/kept", "/root/kept"); got != "kept\nkept" {
			t.Errorf("got %q", got)
		}
	})
}

// clones is how many guests of one template are compared: few, or as many as BANGER_E2E_CLONES says.
func clones(t *testing.T) int {
	t.Helper()
	s := os.Getenv("BANGER_E2E_CLONES")
	if s == "" {
		return 6
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 2 {
		t.Fatalf("BANGER_E2E_CLONES=%s is no number of clones", s)
	}
	return n
}

// twin starts a VM with the template, returns what must be its own, one fact a line, and deletes it. The kernel makes ports and
// sequence numbers of connections with one secret (net/core/secure_seq.c): guests that share it connect to one address from the same
// ports.
func (h house) twin(t *testing.T, name string) []string {
	t.Helper()
	h.must(t, "vm", "create", "--start", "--quiet", "--name", name, "--memory", "256M")
	defer h.must(t, "vm", "delete", "--force", name)
	if got := h.startOf(t, name); got != "warm" {
		t.Fatalf("%s was started %s", name, got)
	}
	facts := h.must(t, "exec", name, "--", "sh", "-c", `cat /etc/machine-id /sys/class/net/eth0/address /proc/sys/kernel/random/boot_id /proc/sys/kernel/random/uuid
		head -c 16 /dev/urandom | od -An -tx1; perl -MIO::Socket::INET -e '
			for (7001 .. 7003) {
				my $l = IO::Socket::INET->new(Listen => 1, LocalAddr => "127.0.0.1", LocalPort => $_) or die;
				printf "%d ", IO::Socket::INET->new(PeerAddr => "127.0.0.1", PeerPort => $_)->sockport
			}'`)
	return append(strings.Split(facts, "\n"), h.must(t, "vm", "known-hosts", name+".vm"))
}

// TestClonesDiffer looks at what must not be the same in two guests that were one.
func TestClonesDiffer(t *testing.T) {
	h := warm(t, "")
	dir := h.template(t)
	seen := map[string]string{}
	for i := range clones(t) {
		name := fmt.Sprintf("twin-%d", i)
		facts := h.twin(t, name)
		if len(facts) != 7 {
			t.Fatalf("%s has the facts %q", name, facts)
		}
		for _, fact := range facts {
			if other := seen[fact]; other != "" {
				t.Errorf("%s and %s both have %q", name, other, fact)
			}
			seen[fact] = name
		}
	}
	t.Run("nor is there a key in the template", func(t *testing.T) {
		private, err := os.ReadFile(filepath.Join(h.root, "state/keys/id_ed25519"))
		if err != nil {
			t.Fatal(err)
		}
		key, err := ssh.ParsePrivateKey(private)
		if err != nil {
			t.Fatal(err)
		}
		// The private keys of guests, in OpenSSH's form (PROTOCOL.key of OpenSSH), all begin alike.
		const anyPrivate = "b3BlbnNzaC1rZXktdjE"
		if !bytes.Contains(private, []byte(anyPrivate)) {
			t.Fatalf("the daemon's key is none: it has no %q", anyPrivate)
		}
		secrets := []string{anyPrivate, string(bytes.Fields(ssh.MarshalAuthorizedKey(key.PublicKey()))[1])}
		for name, has := range map[string]string{"memory": "Linux version ", "state": "virtio", "root.qcow2": "QFI\xfb", "work.qcow2": "QFI\xfb"} {
			b, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Contains(b, []byte(has)) {
				t.Errorf("%s has no %q: is it what this test takes it for?", name, has)
			}
			for _, s := range secrets {
				if bytes.Contains(b, []byte(s)) {
					t.Errorf("%s has %q", name, s)
				}
			}
		}
	})
}

func TestTemplateFaults(t *testing.T) {
	t.Run("a damaged template is not used, and is made anew in the background", func(t *testing.T) {
		h := warm(t, "")
		dir := h.template(t)
		for _, name := range []string{"memory", "state"} {
			f, err := os.OpenFile(filepath.Join(dir, name), os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			f.Write([]byte{0})
			f.Close()
			h.must(t, "vm", "create", "--start", "--quiet", "--name", "cold", "--memory", "256M")
			got := h.startOf(t, "cold")
			h.must(t, "vm", "delete", "--force", "cold")
			if !strings.HasPrefix(got, "cold the template is damaged") || !strings.Contains(got, name) {
				t.Errorf("with another %s it was started %s", name, got)
			}
			eventually(t, "a good template", func() bool { return h.must(t, "template", "list", "--format", "{{.Error}}") == "" })
		}
	})
	t.Run("--cold and warm_starts=false boot, and say so", func(t *testing.T) {
		h := warm(t, "")
		h.template(t)
		h.must(t, "vm", "create", "--start", "--quiet", "--name", "cold", "--memory", "256M", "--cold")
		defer h.must(t, "vm", "delete", "--force", "cold")
		if got := h.startOf(t, "cold"); got != "cold it was made with --cold" {
			t.Errorf("it was started %s", got)
		}
		h.must(t, "daemon", "stop")
		t.Setenv("BANGER_WARM_STARTS", "false")
		h.must(t, "vm", "create", "--start", "--quiet", "--name", "off", "--memory", "256M")
		defer h.must(t, "vm", "delete", "--force", "off")
		if got := h.startOf(t, "off"); got != "cold warm_starts is off" {
			t.Errorf("it was started %s", got)
		}
	})
	for _, step := range []string{"template.booted", "template.saved", "template.published", "machine.attach.done", "agent.attach"} {
		t.Run("a daemon killed at "+step+" while it makes a template leaves nothing, and the next one makes it", func(t *testing.T) {
			h := warm(t, step+"=kill")
			if out, err := h.banger("template", "build", "--quiet", "--memory", "256M"); err == nil {
				t.Fatalf("it was made: %s", out)
			}
			os.Unsetenv("BANGER_FAILPOINTS")
			h.must(t, "daemon", "start")
			if left := h.left(); strings.Contains(left, "qemu") || strings.Contains(left, "/making-") || strings.Contains(left, "/templates/") {
				t.Errorf("left behind:\n%s", left)
			}
			h.template(t)
		})
	}
	t.Run("a VMM killed while it makes a template, or wakes one, leaves nothing, and the next one does it", func(t *testing.T) {
		h := warm(t, "")
		h.with(t, "agent.attach=delay:2s")
		build := h.start(t, "template", "build", "--quiet", "--memory", "256M")
		h.reaches(t, "template", "agent.attach")
		h.killVMM(t, "run/templates/")
		build.ends(76, "^banger: make a template of image")
		if left := h.left(); strings.Contains(left, "qemu") || strings.Contains(left, "/making-") {
			t.Errorf("left behind:\n%s", left)
		}
		h.template(t)
		create := h.start(t, "vm", "create", "--start", "--name", "woken", "--memory", "256M")
		defer h.must(t, "vm", "delete", "--force", "woken")
		h.reaches(t, "woken", "agent.attach")
		h.killVMM(t, "run/vms/")
		create.ends(0)
		if got := h.startOf(t, "woken"); !strings.HasPrefix(got, "cold from its template it did not start") {
			t.Errorf("it was started %s", got)
		}
		h.must(t, "exec", "woken", "--", "true")
	})
	for _, step := range []string{"disks.attach.done", "machine.attach.done", "agent.attach.done"} {
		t.Run("a daemon killed at "+step+" of a warm start leaves nothing, and the same create then succeeds", func(t *testing.T) {
			h := warm(t, "")
			h.template(t)
			h.must(t, "daemon", "stop")
			t.Setenv("BANGER_FAILPOINTS", step+"=kill")
			create := []string{"vm", "create", "--start", "--quiet", "--name", "again", "--memory", "256M"}
			if out, err := h.banger(create...); err == nil {
				t.Fatalf("it was made: %s", out)
			}
			os.Unsetenv("BANGER_FAILPOINTS")
			h.empty(t)
			h.must(t, create...)
			if got := h.startOf(t, "again"); got != "warm" {
				t.Errorf("it was started %s", got)
			}
			h.must(t, "vm", "delete", "--force", "again")
		})
	}
}

// TestWarmRun is the main job, warm, as often as it takes for its VMs to be many: each gets the repository, and none the other's.
func TestWarmRun(t *testing.T) {
	h := warm(t, "")
	h.template(t)
	repo := t.TempDir()
	for _, argv := range [][]string{{"git", "init", "-q"}, {"git", "-c", "user.name=A", "-c", "user.email=a@example.org", "commit", "-q", "--allow-empty", "-m", "one"}} {
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Dir = repo
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	var all []string
	for range 3 {
		out := h.must(t, "run", "--rm", "--quiet", "--memory", "256M", "--patch", filepath.Join(t.TempDir(), "p"), repo, "--", "sh", "-c", "ls; git log --format=%s; hostname; touch made")
		if !strings.HasPrefix(out, "one\n") || slices.Contains(all, out) {
			t.Errorf("got %q, after %q", out, all)
		}
		all = append(all, out)
	}
}
