package firecracker

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

// The bodies of the requests that the driver makes, as src/firecracker/swagger/firecracker.yaml of Firecracker 1.16.1 defines them.
// Fields that we do not use are left out; those that are here are in 1.10 too.

// bootSource is BootSource, for PUT /boot-source.
type bootSource struct {
	KernelImagePath string `json:"kernel_image_path"`
	InitrdPath      string `json:"initrd_path"`
	BootArgs        string `json:"boot_args"`
}

// machineConfiguration is MachineConfiguration, for PUT /machine-config.
type machineConfiguration struct {
	VCPUCount  int `json:"vcpu_count"` // 1 to 32
	MemSizeMiB int `json:"mem_size_mib"`
}

// drive is Drive, for PUT /drives/{drive_id}.
type drive struct {
	DriveID      string `json:"drive_id"`
	PathOnHost   string `json:"path_on_host"`
	IsRootDevice bool   `json:"is_root_device"` // true would add root= to the kernel's command line
	IsReadOnly   bool   `json:"is_read_only"`
	CacheType    string `json:"cache_type"` // Writeback: a flush of the guest's reaches the disk
}

// networkInterface is NetworkInterface, for PUT /network-interfaces/{iface_id}.
type networkInterface struct {
	IfaceID     string `json:"iface_id"`
	HostDevName string `json:"host_dev_name"`
	GuestMAC    string `json:"guest_mac"`
}

// vsock is Vsock, for PUT /vsock.
type vsock struct {
	GuestCID int    `json:"guest_cid"`
	UDSPath  string `json:"uds_path"`
}

// entropyDevice is EntropyDevice, for PUT /entropy.
type entropyDevice struct{}

// instanceAction is InstanceActionInfo, for PUT /actions.
type instanceAction struct {
	ActionType string `json:"action_type"`
}

// actionStart starts the guest. What is configured before it cannot be changed after it.
const actionStart = "InstanceStart"

// APIError is a request that Firecracker refused.
type APIError struct {
	Path   string // what was asked for
	Status int    // of HTTP
	Fault  string // fault_message, in Firecracker's own words
}

func (e *APIError) Error() string {
	return fmt.Sprintf("firecracker refuses %s (%d): %s", e.Path, e.Status, e.Fault)
}

// answerWithin bounds the wait for an answer. Firecracker gives it in milliseconds; a start reads kernel and initramfs first.
const answerWithin = time.Minute

// client speaks with one Firecracker, on one connection and one request at a time.
type client struct {
	conn net.Conn
	in   *bufio.Reader
}

func newClient(conn net.Conn) *client { return &client{conn: conn, in: bufio.NewReader(conn)} }

// put makes one request. What Firecracker refuses is an [APIError] of kind unavailable.
func (c *client) put(ctx context.Context, path string, body any) error {
	if err := c.conn.SetDeadline(time.Now().Add(answerWithin)); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { c.conn.SetDeadline(time.Unix(1, 0)) })() //nolint:errcheck // a socket takes it
	res, err := c.do(path, body)
	switch {
	case err != nil && ctx.Err() != nil:
		return fmt.Errorf("ask firecracker for %s: %w", path, ctx.Err())
	case err != nil:
		return errkind.New(api.KindUnavailable, "ask firecracker for %s: %w", path, err)
	case res.StatusCode == http.StatusNoContent || res.StatusCode == http.StatusOK:
		return res.Body.Close()
	}
	defer res.Body.Close()
	refused := &APIError{Path: path, Status: res.StatusCode, Fault: "it does not say why"}
	var fault struct {
		Message string `json:"fault_message"`
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, 64<<10)).Decode(&fault); err == nil && fault.Message != "" {
		refused.Fault = fault.Message
	}
	return errkind.New(api.KindUnavailable, "%w", refused)
}

func (c *client) do(path string, body any) (*http.Response, error) {
	b, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequest(http.MethodPut, "http://localhost"+path, bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	if err := req.Write(c.conn); err != nil {
		return nil, err
	}
	res, err := http.ReadResponse(c.in, req)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = errors.New("it closed the connection")
	}
	return res, err
}

func (c *client) close() { c.conn.Close() }
