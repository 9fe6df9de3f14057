package fctest

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
)

// double is one Firecracker.
type double struct {
	api  *openAPI
	jail string // what its paths begin with, for the host; empty: it is not jailed
	log  io.Writer

	mu      sync.Mutex // one request at a time, as the real one
	running bool
	kernel  string // path; empty: no boot source
	vsock   net.Listener
}

func newDouble(jail string) (*double, error) {
	api, err := readDescription()
	return &double{api: api, jail: jail}, err
}

// path is the host's name of a path that the double was given.
func (d *double) path(p string) string {
	if d.jail == "" {
		return p
	}
	return filepath.Join(d.jail, p)
}

// ServeHTTP answers a request as the real one does.
func (d *double) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	body, err := io.ReadAll(r.Body)
	if err == nil {
		err = d.answer(r.Method, r.URL.Path, body)
	}
	if err == nil {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	fmt.Fprintf(d.log, "Received Error. Status code: 400 Bad Request. Message: %v\n", err)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusBadRequest)
	json.NewEncoder(w).Encode(map[string]string{"fault_message": err.Error()}) //nolint:errcheck // the asker has gone
}

// fault is a fault_message: words of the real one.
type fault string

func (f fault) Error() string { return string(f) }

func refuse(format string, args ...any) error { return fault(fmt.Sprintf(format, args...)) }

var resourceID = regexp.MustCompile(`^[\pL\pN_]+$`)

// answer does what is asked for, or says why not.
func (d *double) answer(method, path string, body []byte) error {
	op, id, ok := d.api.find(method, path)
	if !ok {
		return refuse("Invalid request method and/or path: %s %s.", method, strings.Split(path, "/")[1])
	}
	if method == http.MethodGet {
		return nil
	}
	if id != "" && !resourceID.MatchString(id) {
		return refuse("API Resource IDs can only contain alphanumeric characters and underscores.")
	}
	if err := d.api.checkBody(op, body); err != nil {
		return refuse("An error occurred when deserializing the json body of a request: %v", err)
	}
	if method == http.MethodPatch {
		if !d.running {
			return refuse("The requested operation is not supported before starting the microVM.")
		}
		return nil
	}
	if d.running && path != "/actions" {
		return errPostBoot
	}
	do := map[string]func(id string, body []byte) error{
		"boot-source": d.bootSource, "machine-config": machineConfig, "drives": d.drive, "network-interfaces": networkInterface,
		"vsock": d.putVsock, "actions": d.action,
	}[strings.Split(path, "/")[1]]
	if do == nil {
		return nil // nothing to get wrong beyond the description
	}
	return do(id, body)
}

var errPostBoot = refuse("The requested operation is not supported after starting the microVM.")

// read decodes a body that was checked.
func read[T any](body []byte) (v T, err error) { return v, json.Unmarshal(body, &v) }

func (d *double) bootSource(_ string, body []byte) error {
	v, err := read[struct {
		Kernel string `json:"kernel_image_path"`
		Initrd string `json:"initrd_path"`
	}](body)
	if err != nil {
		return err
	}
	if err := readable(d.path(v.Kernel)); err != nil {
		return refuse("Boot source error: The kernel file cannot be opened: %s", osError(err))
	}
	if v.Initrd != "" {
		if err := readable(d.path(v.Initrd)); err != nil {
			return refuse("Boot source error: The initrd file cannot be opened due to invalid path or invalid permissions. %s", osError(err))
		}
	}
	d.kernel = d.path(v.Kernel)
	return nil
}

func machineConfig(_ string, body []byte) error {
	v, err := read[struct {
		VCPU int `json:"vcpu_count"`
		Mem  int `json:"mem_size_mib"`
	}](body)
	switch {
	case err != nil:
		return err
	case v.VCPU < 1 || v.VCPU > 32:
		return refuse("Machine config error: The number of vCPUs must be greater than 0, less than 32 and must be 1 or an even number if SMT is enabled.")
	case v.Mem == 0:
		return refuse("Machine config error: The memory size (MiB) is either 0, or not a multiple of the configured page size.")
	}
	return nil
}

func (d *double) drive(id string, body []byte) error {
	v, err := read[struct {
		ID       string `json:"drive_id"`
		Path     string `json:"path_on_host"`
		ReadOnly bool   `json:"is_read_only"`
	}](body)
	if err != nil {
		return err
	}
	if v.ID != id {
		return refuse("The id from the path does not match the id from the body!")
	}
	flag := os.O_RDWR
	if v.ReadOnly {
		flag = os.O_RDONLY
	}
	f, err := os.OpenFile(d.path(v.Path), flag, 0)
	if err != nil {
		return refuse("Drive config error: Unable to create the virtio block device: Virtio backend error: "+
			"Error manipulating the backing file: %s %s", osError(err), v.Path)
	}
	return f.Close()
}

func networkInterface(id string, body []byte) error {
	v, err := read[struct {
		ID  string `json:"iface_id"`
		Tap string `json:"host_dev_name"`
		MAC string `json:"guest_mac"`
	}](body)
	if err != nil {
		return err
	}
	if _, err := net.ParseMAC(v.MAC); v.MAC != "" && err != nil {
		return refuse("An error occurred when deserializing the json body of a request: The provided MAC address is invalid.")
	}
	if v.ID != id {
		return refuse("The id from the path [%s] does not match the id from the body [%s]!", id, v.ID)
	}
	if len(v.Tap) > 15 { // IFNAMSIZ of linux/if.h, without the end
		return refuse("Network config error: Could not create the network device: Open tap device failed: Invalid interface name")
	}
	return nil
}

// putVsock binds the socket; it is served from the start on.
func (d *double) putVsock(_ string, body []byte) error {
	v, err := read[struct {
		Path string `json:"uds_path"`
	}](body)
	if err != nil {
		return err
	}
	l, err := net.Listen("unix", d.path(v.Path))
	if err != nil {
		return refuse("Vsock config error: Cannot create backend for vsock device: Error binding to the host-side Unix socket: %s", osError(err))
	}
	d.vsock = l
	return nil
}

func (d *double) action(_ string, body []byte) error {
	v, err := read[struct {
		Type string `json:"action_type"`
	}](body)
	switch {
	case err != nil:
		return err
	case v.Type != "InstanceStart" && !d.running:
		return refuse("The requested operation is not supported before starting the microVM.")
	case v.Type != "InstanceStart":
		return nil
	case d.running:
		return errPostBoot
	case d.kernel == "":
		return refuse("Start microvm error: Cannot start microvm without kernel configuration.")
	}
	if err := isELF(d.kernel); err != nil {
		return err
	}
	d.running = true
	if d.vsock != nil {
		go serveVsock(d.vsock)
	}
	return nil
}

func isELF(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	magic := make([]byte, 4)
	if _, err := io.ReadFull(f, magic); err != nil || string(magic) != "\x7fELF" {
		return refuse("Start microvm error: System configuration error: Cannot load kernel due to invalid memory configuration or invalid " +
			"kernel image: Kernel Loader: failed to load ELF kernel image: Kernel Loader: Invalid Elf magic number")
	}
	return nil
}
