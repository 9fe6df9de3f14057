package e2e

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// worldEnv is where a process of this program serves as the internet: see world.
const worldEnv = "BANGER_E2E_WORLD"

// world is the internet: an HTTP server at an address. It says so, and serves until it is killed.
func world(address string) int {
	l, err := net.Listen("tcp", address)
	if err == nil {
		fmt.Println("the world is open")
		err = http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "hello", r.RemoteAddr) }))
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// lab is a host of its own, as far as the network goes: a network namespace in which the daemon and its clients run, and a second
// one behind a cable that plays the internet.
type lab struct {
	house
	t         *testing.T
	host, net string // names of the namespaces
}

// newLab builds the lab and starts a daemon in mode bridge in it. At the end nothing of it is left.
func newLab(t *testing.T) *lab {
	h := guests(t)
	if os.Geteuid() != 0 {
		t.Skip("needs root, for network namespaces")
	}
	for _, program := range []string{"ip", "nft"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("needs %s", program)
		}
	}
	l := &lab{house: h, t: t, host: fmt.Sprintf("bgn-h%d", os.Getpid()), net: fmt.Sprintf("bgn-n%d", os.Getpid())}
	h.must(t, "daemon", "stop") // this one has the state from here on
	for _, ns := range []string{l.host, l.net} {
		l.run("ip", "netns", "add", ns)
		t.Cleanup(func() { l.run("ip", "netns", "delete", ns) })
		l.run("ip", "-n", ns, "link", "set", "lo", "up")
	}
	l.run("ip", "link", "add", "up0", "netns", l.host, "type", "veth", "peer", "name", "down0", "netns", l.net)
	l.run("ip", "-n", l.host, "address", "add", "192.0.2.1/24", "dev", "up0")
	l.run("ip", "-n", l.net, "address", "add", "192.0.2.2/24", "dev", "down0")
	l.run("ip", "-n", l.host, "link", "set", "up0", "up")
	l.run("ip", "-n", l.net, "link", "set", "down0", "up")
	l.run("ip", "-n", l.host, "route", "add", "default", "via", "192.0.2.2")
	l.openWorld()
	t.Setenv("BANGER_NETWORK_MODE", "bridge")
	before := l.show()
	t.Cleanup(func() {
		os.Unsetenv("BANGER_FAILPOINTS")
		if names := l.ok("vm", "list", "-q"); names != "" {
			l.ok(append([]string{"vm", "delete", "--force"}, strings.Fields(names)...)...)
		}
		l.ok("daemon", "stop")
		if after := l.show(); after != before {
			t.Errorf("left in the host's network:\n%s\nbefore:\n%s", after, before)
		}
	})
	return l
}

func (l *lab) run(argv ...string) string {
	l.t.Helper()
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		l.t.Fatalf("%v: %v\n%s", argv, err, out)
	}
	return strings.TrimSpace(string(out))
}

func (l *lab) openWorld() {
	l.t.Helper()
	self, err := os.Executable()
	if err != nil {
		l.t.Fatal(err)
	}
	cmd := exec.Command("ip", "netns", "exec", l.net, self)
	cmd.Env = append(os.Environ(), worldEnv+"=192.0.2.2:80")
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() }) //nolint:errcheck // the end of a server
	if _, err := out.Read(make([]byte, 1)); err != nil {
		l.t.Fatal(err)
	}
}

// banger runs the command line in the lab. It must never run outside: it would start a daemon there.
func (l *lab) banger(args ...string) (string, error) {
	cmd := exec.Command("ip", append([]string{"netns", "exec", l.host, filepath.Join(l.bin, "banger")}, args...)...)
	cmd.Env = append(os.Environ(), "BANGER_ROOT="+l.root)
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func (l *lab) ok(args ...string) string {
	l.t.Helper()
	out, err := l.banger(args...)
	if err != nil {
		l.t.Fatalf("banger %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// show is what the lab's host has of links, addresses, rules and forwarding, idle taps aside.
func (l *lab) show() string {
	var lines []string
	for line := range strings.Lines(l.run("ip", "-n", l.host, "-brief", "address")) {
		if f := strings.Fields(line); !strings.HasPrefix(f[0], "bgi-") {
			lines = append(lines, f[0]+" "+strings.Join(f[2:], " "))
		}
	}
	in := []string{"ip", "netns", "exec", l.host}
	return strings.Join(append(lines, l.run(append(in, "nft", "list", "ruleset")...),
		l.run(append(in, "cat", "/proc/sys/net/ipv4/ip_forward")...)), "\n")
}

// serve lets a VM answer on port 80 with its name.
func (l *lab) serve(vm string) {
	l.t.Helper()
	l.ok("exec", vm, "--", "sh", "-c", fmt.Sprintf(`nohup perl -MIO::Socket::INET -e '
		my $s = IO::Socket::INET->new(LocalPort => 80, Listen => 9, ReuseAddr => 1) or die; open my $r, ">", "/run/serving"; close $r;
		while (my $c = $s->accept) { my $l = <$c>; print $c "HTTP/1.0 200 OK\r\n\r\nfrom %s\n"; close $c }' >/dev/null 2>&1 &
		until [ -e /run/serving ]; do sleep 0.05; done`, vm))
}

// reaches reports whether a GET of url from a VM is answered, within a time that is far more than an answer takes.
func (l *lab) reaches(vm, url string) bool {
	l.t.Helper()
	out, err := l.banger("exec", vm, "--", "perl", "-MIO::Socket::INET", "-e", `
		my $s = IO::Socket::INET->new(PeerAddr => $ARGV[0], Timeout => 3) or exit 1; print $s "GET / HTTP/1.0\r\n\r\n"; print <$s>`, url)
	return err == nil && strings.Contains(out, "200 OK")
}

// get asks a server from the lab's host.
func (l *lab) get(address string) string {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "ip", "netns", "exec", l.host, "bash", "-c",
		`exec 3<>"/dev/tcp/${0%:*}/${0#*:}" && printf 'GET / HTTP/1.0\r\n\r\n' >&3 && cat <&3`, address).CombinedOutput()
	if err != nil {
		return fmt.Sprintf("%v: %s", err, out)
	}
	return string(out)
}

func TestBridge(t *testing.T) {
	l := newLab(t)
	for _, args := range []string{"web --group shop -p 8080:80", "db --group shop", "spy", "hermit --nat=false"} {
		l.ok(append([]string{"vm", "create", "--start", "--memory", "256M", "--name"}, strings.Fields(args)...)...)
	}
	address := func(vm string) string { return l.ok("vm", "show", "--format", "{{.Address}}", vm) }
	for _, vm := range []string{"web", "db", "spy"} {
		l.serve(vm)
	}
	expect := func(want bool, from, to string) {
		t.Helper()
		if l.reaches(from, to) != want {
			t.Errorf("%s reaches %s: %t", from, to, !want)
		}
	}
	t.Run("a guest has its address, and finds others by name", func(t *testing.T) {
		if got := l.ok("exec", "web", "--", "ip", "-4", "-o", "address", "show", "eth0"); !strings.Contains(got, address("web")+"/") {
			t.Errorf("%s has %s", address("web"), got)
		}
		if got := l.ok("exec", "web", "--", "getent", "hosts", "db.vm"); !strings.Contains(got, address("db")) {
			t.Errorf("db.vm is %s, not %s", got, address("db"))
		}
		if got := l.ok("exec", "web", "--", "getent", "hosts", address("spy")); !strings.Contains(got, "spy.vm") {
			t.Errorf("%s is called %s", address("spy"), got)
		}
	})
	t.Run("guests reach each other in a group only", func(t *testing.T) {
		expect(true, "web", "db.vm:80")
		expect(true, "db", "web.vm:80")
		expect(false, "web", "spy.vm:80")
		expect(false, "spy", "web.vm:80")
		expect(false, "hermit", "web.vm:80")
	})
	t.Run("nor by another's address, nor through the host", func(t *testing.T) {
		l.ok("exec", "spy", "--", "ip", "address", "add", address("db")+"/32", "dev", "eth0")
		out, err := l.banger("exec", "spy", "--", "perl", "-MIO::Socket::INET", "-e",
			`IO::Socket::INET->new(PeerAddr => $ARGV[0], LocalAddr => $ARGV[1], Timeout => 3) or die`, address("web")+":80", address("db"))
		if err == nil {
			t.Errorf("spy reaches web in db's name: %s", out)
		}
		l.ok("exec", "spy", "--", "ip", "address", "delete", address("db")+"/32", "dev", "eth0")
		l.ok("exec", "spy", "--", "ip", "route", "add", address("web")+"/32", "via", "10.209.0.1")
		expect(false, "spy", address("web")+":80")
	})
	t.Run("the world is open to guests with NAT, and the host is not", func(t *testing.T) {
		expect(true, "web", "192.0.2.2:80")
		expect(false, "hermit", "192.0.2.2:80")
		if got := l.run("ip", "netns", "exec", l.host, "bash", "-c", "exec 3<>/dev/tcp/192.0.2.2/80 && echo open"); got != "open" {
			t.Fatalf("the lab's host does not reach the world: %s", got)
		}
		cmd := exec.Command("ip", "netns", "exec", l.host, os.Args[0])
		cmd.Env = append(os.Environ(), worldEnv+"=0.0.0.0:9999")
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		defer cmd.Wait()         //nolint:errcheck // it is killed
		defer cmd.Process.Kill() //nolint:errcheck // as above
		if _, err := out.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		expect(false, "web", "10.209.0.1:9999")
		expect(false, "web", "192.0.2.1:9999")
	})
	t.Run("the host reaches a guest by its address, by a published port, and knows where", func(t *testing.T) {
		for _, at := range []string{address("web") + ":80", "127.0.0.1:8080"} {
			if got := l.get(at); !strings.Contains(got, "from web") {
				t.Errorf("%s: %s", at, got)
			}
		}
		if got := l.ok("vm", "ports", "web"); !strings.Contains(got, "http://web.vm:80") || !strings.Contains(got, "127.0.0.1:8080") {
			t.Errorf("ports:\n%s", got)
		}
	})
	t.Run("while the daemon is killed and away guests keep their network, and the next one changes nothing", func(t *testing.T) {
		boot := l.ok("exec", "web", "--", "cat", "/proc/sys/kernel/random/boot_id")
		before := l.show()
		l.killDaemon()
		if got := l.get(address("web") + ":80"); !strings.Contains(got, "from web") {
			t.Errorf("without a daemon: %s", got)
		}
		expect(true, "web", "192.0.2.2:80") // starts the next daemon
		expect(true, "web", "db.vm:80")
		expect(false, "web", "spy.vm:80")
		if got := l.get("127.0.0.1:8080"); !strings.Contains(got, "from web") {
			t.Errorf("the published port: %s", got)
		}
		if got := l.show(); got != before {
			t.Errorf("after:\n%s\nbefore:\n%s", got, before)
		}
		if got := l.ok("exec", "web", "--", "cat", "/proc/sys/kernel/random/boot_id"); got != boot {
			t.Errorf("another boot: %s, was %s", got, boot)
		}
	})
	t.Run("a group can be changed, and a VM that is gone leaves nothing", func(t *testing.T) {
		l.ok("vm", "set", "--group", "shop", "--restart", "spy")
		l.serve("spy")
		expect(true, "web", "spy.vm:80")
		l.ok("vm", "delete", "--force", "web")
		if got := l.show(); strings.Contains(got, "10.209.0.2\n") || strings.Count(got, "\nbg-") != 3 {
			t.Errorf("after the delete:\n%s", got)
		}
	})
}

func (l *lab) killDaemon() {
	l.t.Helper()
	l.run("kill", "-9", l.ok("daemon", "status", "--format", "{{.PID}}"))
}

func TestBridgeCrashes(t *testing.T) {
	l := newLab(t)
	l.ok("daemon", "start")
	idle := l.show()
	for _, step := range []string{"nic.attach", "nat.attach", "dns.attach", "machine.attach", "ports.attach"} {
		for _, at := range []string{step, step + ".done"} {
			t.Run("a daemon killed at "+at+" of a create leaves nothing in the network", func(t *testing.T) {
				l.ok("daemon", "stop")
				t.Setenv("BANGER_FAILPOINTS", at+"=kill")
				if out, err := l.banger("vm", "create", "--start", "--name", "again", "--memory", "256M", "-p", "8080:80"); err == nil {
					t.Fatalf("the create succeeded although the daemon was killed:\n%s", out)
				}
				os.Unsetenv("BANGER_FAILPOINTS")
				if names := l.ok("vm", "list", "--quiet"); names != "" {
					t.Errorf("VMs are left: %s", names)
				}
				if got := l.show(); got != idle {
					t.Errorf("left:\n%s\nwithout VMs:\n%s", got, idle)
				}
			})
		}
		t.Run("an error at "+step+" undoes the start, and the same create then succeeds", func(t *testing.T) {
			l.ok("daemon", "stop")
			t.Setenv("BANGER_FAILPOINTS", step+".done=error")
			if out, err := l.banger("vm", "create", "--start", "--name", "again", "--memory", "256M", "-p", "8080:80"); err == nil {
				t.Fatalf("the create succeeded although %s failed:\n%s", step, out)
			}
			if got := l.show(); got != idle {
				t.Errorf("left:\n%s\nwithout VMs:\n%s", got, idle)
			}
			l.ok("daemon", "stop")
			os.Unsetenv("BANGER_FAILPOINTS")
			l.ok("vm", "create", "--start", "--name", "again", "--memory", "256M", "-p", "8080:80")
			l.ok("vm", "delete", "--force", "again")
			if got := l.show(); got != idle {
				t.Errorf("after the delete:\n%s\nwithout VMs:\n%s", got, idle)
			}
		})
	}
}
