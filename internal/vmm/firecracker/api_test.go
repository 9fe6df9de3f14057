package firecracker

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/vmm"
	"github.com/banger-vm/banger/internal/vmm/firecracker/fcproc"
	"github.com/banger-vm/banger/internal/vmm/firecracker/fctest"
	"github.com/banger-vm/banger/internal/vmm/vmmproc"
)

// realVariable names a real Firecracker, on which tests run as on the double.
const realVariable = "BANGER_FIRECRACKER"

// TestAPI says what Firecracker takes and refuses, and proves that the double and, where there is one, the real one do.
func TestAPI(t *testing.T) {
	double, _ := fctest.Install(t)
	t.Run("the double", func(t *testing.T) { testAPI(t, double) })
	t.Run("the real one", func(t *testing.T) {
		real := os.Getenv(realVariable)
		if real == "" {
			t.Skip(realVariable + " names no Firecracker")
		}
		testAPI(t, real)
	})
}

// fresh starts a Firecracker without a guest and returns a client of it. Its directory has the files kernel, initrd and disk.
func fresh(t *testing.T, binary string) (*client, *machine, string) {
	t.Helper()
	s := newSpec(t)
	for name, from := range map[string]string{"kernel": s.Kernel, "initrd": s.Initrd, "disk": s.Disks[0].Path} {
		if err := os.Link(from, filepath.Join(s.RunDir, name)); err != nil {
			t.Fatal(err)
		}
	}
	d := New(t.Context(), direct(binary))
	p, err := d.home.Start(d.program(fcproc.NewCell(d.tools, s), s))
	if err != nil {
		t.Fatal(err)
	}
	m := newMachine(d, p)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), vmmproc.KillTimeout)
		defer cancel()
		if err := m.Kill(ctx); err != nil {
			t.Error(err)
		}
	})
	conn, err := m.serving(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c := newClient(conn)
	t.Cleanup(c.close)
	return c, m, s.RunDir
}

func testAPI(t *testing.T, binary string) {
	c, _, _ := fresh(t, binary)
	const parser = "An error occurred when deserializing the json body of a request: "
	// In this order, on one process; an empty fault is consent.
	for _, r := range []struct{ name, path, body, fault string }{
		{"a start without a kernel", "/actions", `{"action_type":"InstanceStart"}`, "Start microvm error: Cannot start microvm without kernel configuration."},
		{"a good machine", "/machine-config", `{"vcpu_count":1,"mem_size_mib":128}`, ""},
		{"too many processors", "/machine-config", `{"vcpu_count":33,"mem_size_mib":128}`, "Machine config error: The number of vCPUs must be"},
		{"no memory", "/machine-config", `{"vcpu_count":1,"mem_size_mib":0}`, "Machine config error: The memory size (MiB) is either 0"},
		{"a field that is missing", "/machine-config", `{"vcpu_count":1}`, parser + "missing field `mem_size_mib`"},
		{"a field that does not exist", "/machine-config", `{"vcpu_count":1,"mem_size_mib":128,"x":1}`, parser + "unknown field `x`"},
		{"a field of another type", "/machine-config", `{"vcpu_count":"a","mem_size_mib":128}`, parser + `invalid type: string "a"`},
		{"a kernel that is missing", "/boot-source", `{"kernel_image_path":"none"}`,
			"Boot source error: The kernel file cannot be opened: No such file or directory (os error 2)"},
		{"an initrd that is missing", "/boot-source", `{"kernel_image_path":"kernel","initrd_path":"none"}`, "Boot source error: The initrd file cannot be opened"},
		{"a kernel that is none", "/boot-source", `{"kernel_image_path":"disk","initrd_path":"initrd","boot_args":"quiet"}`, ""},
		{"a disk that is missing", "/drives/disk0", `{"drive_id":"disk0","is_root_device":false,"is_read_only":false,"path_on_host":"none"}`,
			"Drive config error: Unable to create the virtio block device: Virtio backend error: Error manipulating the backing file: No such file or directory (os error 2) none"},
		{"a good disk", "/drives/disk0", `{"drive_id":"disk0","is_root_device":false,"is_read_only":false,"path_on_host":"disk","cache_type":"Writeback"}`, ""},
		{"a cache that does not exist", "/drives/disk0", `{"drive_id":"disk0","is_root_device":false,"cache_type":"Bad"}`, parser + "unknown variant `Bad`"},
		{"a disk with two names", "/drives/disk1", `{"drive_id":"disk2","is_root_device":false,"path_on_host":"disk"}`, "The id from the path does not match the id from the body!"},
		{"a disk with a bad name", "/drives/a-b", `{"drive_id":"a-b","is_root_device":false}`, "API Resource IDs can only contain alphanumeric characters and underscores."},
		{"a socket in a directory that is missing", "/vsock", `{"guest_cid":3,"uds_path":"none/agent.sock"}`,
			"Vsock config error: Cannot create backend for vsock device: Error binding to the host-side Unix socket: No such file or directory (os error 2)"},
		{"a good socket", "/vsock", `{"guest_cid":3,"uds_path":"agent.sock"}`, ""},
		{"a tap whose name is too long", "/network-interfaces/eth0", `{"iface_id":"eth0","host_dev_name":"aNameTooLongForATap"}`,
			"Network config error: Could not create the network device: Open tap device failed: Invalid interface name"},
		{"a bad MAC address", "/network-interfaces/eth0", `{"iface_id":"eth0","host_dev_name":"t0","guest_mac":"zz"}`, parser + "The provided MAC address is invalid."},
		{"an interface with two names", "/network-interfaces/eth0", `{"iface_id":"eth1","host_dev_name":"t0"}`,
			"The id from the path [eth0] does not match the id from the body [eth1]!"},
		{"entropy", "/entropy", `{}`, ""},
		{"an action that does not exist", "/actions", `{"action_type":"Foo"}`, parser + "unknown variant `Foo`"},
		{"an action on a guest that does not run", "/actions", `{"action_type":"FlushMetrics"}`, "The requested operation is not supported before starting the microVM."},
		{"a path that does not exist", "/nowhere", `{}`, "Invalid request method and/or path: PUT nowhere."},
		{"a start of what is no kernel", "/actions", `{"action_type":"InstanceStart"}`,
			"Start microvm error: System configuration error: Cannot load kernel due to invalid memory configuration or invalid kernel image"},
	} {
		t.Run(r.name, func(t *testing.T) {
			err := c.put(t.Context(), r.path, json.RawMessage(r.body))
			var refused *APIError
			switch {
			case r.fault == "" && err != nil:
				t.Error(err)
			case r.fault != "" && (!errors.As(err, &refused) || refused.Status != 400 || !strings.HasPrefix(refused.Fault, r.fault)):
				t.Errorf("got  %v\nwant %s", err, r.fault)
			case r.fault != "" && !errkind.Is(err, api.KindUnavailable):
				t.Errorf("kind %s", errkind.Of(err))
			}
		})
	}
}

func TestNothingIsConfiguredAfterTheStart(t *testing.T) {
	double, _ := fctest.Install(t)
	c, _, _ := fresh(t, double)
	for _, r := range []struct{ path, body string }{
		{"/boot-source", `{"kernel_image_path":"kernel"}`}, {"/actions", `{"action_type":"InstanceStart"}`},
	} {
		if err := c.put(t.Context(), r.path, json.RawMessage(r.body)); err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range []struct{ path, body string }{
		{"/entropy", `{}`}, {"/actions", `{"action_type":"InstanceStart"}`}, {"/machine-config", `{"vcpu_count":1,"mem_size_mib":128}`},
	} {
		var refused *APIError
		err := c.put(t.Context(), r.path, json.RawMessage(r.body))
		if !errors.As(err, &refused) || refused.Fault != "The requested operation is not supported after starting the microVM." {
			t.Errorf("%s: %v", r.path, err)
		}
	}
}

func TestClient(t *testing.T) {
	// serve answers one request with an answer of the test's own.
	serve := func(t *testing.T, answer string) *client {
		host, server := net.Pipe()
		t.Cleanup(func() { host.Close() })
		go func() {
			defer server.Close()
			buf := make([]byte, 4096)
			if _, err := server.Read(buf); err == nil && answer != "" {
				server.Write([]byte(answer)) //nolint:errcheck // the client says what it misses
			}
			if answer == "" {
				server.Read(buf) //nolint:errcheck // waits for the client to give up
			}
		}()
		return newClient(host)
	}
	t.Run("a refusal without a reason is one", func(t *testing.T) {
		err := serve(t, "HTTP/1.1 500 \r\nContent-Length: 0\r\n\r\n").put(t.Context(), "/entropy", entropyDevice{})
		var refused *APIError
		if !errors.As(err, &refused) || refused.Status != 500 || err.Error() != "firecracker refuses /entropy (500): it does not say why" {
			t.Errorf("got %v", err)
		}
	})
	t.Run("an end in the middle of an answer is no consent", func(t *testing.T) {
		if err := serve(t, "HTTP/1.1 20").put(t.Context(), "/entropy", entropyDevice{}); !errkind.Is(err, api.KindUnavailable) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("who waits for an answer hears of the end of the context", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		c := serve(t, "")
		cancel()
		if err := c.put(ctx, "/entropy", entropyDevice{}); !errkind.Is(err, api.KindCanceled) {
			t.Errorf("got %v", err)
		}
	})
}

func TestWhatFirecrackerIsTold(t *testing.T) {
	double, _ := fctest.Install(t)
	d := New(t.Context(), direct(double))
	s := newSpec(t)
	s.Args, s.NIC = "lsm=", &vmm.NIC{MAC: "02:00:00:00:00:01", Tap: "bg-1"}
	list, err := configuration(fcproc.NewCell(d.tools, s), s)
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for _, r := range list {
		b, err := json.Marshal(r.body)
		if err != nil {
			t.Fatal(err)
		}
		got.WriteString(strings.ReplaceAll(r.path+" "+string(b), s.Dir, "DIR") + "\n")
	}
	const want = `/machine-config {"vcpu_count":1,"mem_size_mib":128}
/boot-source {"kernel_image_path":"DIR/vmlinux","initrd_path":"DIR/initrd","boot_args":"console=ttyS0 reboot=k panic=-1 quiet cryptomgr.notests=1 i8042.noaux i8042.nomux i8042.dumbkbd pci=off lsm="}
/entropy {}
/vsock {"guest_cid":3,"uds_path":"agent.sock"}
/drives/disk0 {"drive_id":"disk0","path_on_host":"DIR/root.raw","is_root_device":false,"is_read_only":false,"cache_type":"Writeback"}
/drives/disk1 {"drive_id":"disk1","path_on_host":"DIR/modules","is_root_device":false,"is_read_only":true,"cache_type":"Writeback"}
/network-interfaces/eth0 {"iface_id":"eth0","host_dev_name":"bg-1","guest_mac":"02:00:00:00:00:01"}
`
	if got.String() != want {
		t.Errorf("got\n%s\nwant\n%s", &got, want)
	}
}
