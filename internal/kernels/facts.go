package kernels

import (
	"bufio"
	"bytes"
	"slices"
	"strings"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

// need says what a kernel option is to a guest.
type need int

const (
	told   need = iota // only told, as a fact
	module             // must be there, as a module or built in
	fixed              // must be built in: it is needed before a module can be loaded
)

// options are the CONFIG_ options that decide what a kernel can serve.
func options() map[string]need {
	return map[string]need{
		"VIRTIO_MMIO": module, "VIRTIO_BLK": module, "VIRTIO_NET": module, "EXT4_FS": module,
		"SERIAL_8250_CONSOLE": fixed, "BLK_DEV_INITRD": fixed, "DEVTMPFS": fixed, "TMPFS": fixed, "UNIX98_PTYS": fixed,
		"BINFMT_ELF": fixed, "UNIX": fixed, "INET": fixed,

		"VIRTIO_CONSOLE": told, "VIRTIO_VSOCKETS": told, "ACPI": told, "VIRTIO_MMIO_CMDLINE_DEVICES": told, // see refuse
		"VIRTIO_PCI": told, "VIRTIO_BALLOON": told, "HW_RANDOM_VIRTIO": told, "VSOCKETS": told, "PVH": told, "KVM_GUEST": told,
		"OVERLAY_FS": told, "SQUASHFS": told, "EROFS_FS": told, "FUSE_FS": told, "BTRFS_FS": told, "XFS_FS": told,
		"IP_PNP": told, "IPV6": told, "NF_TABLES": told, "BRIDGE": told, "TUN": told, "VETH": told,
		"CGROUPS": told, "NAMESPACES": told, "USER_NS": told, "SECCOMP": told, "BPF_SYSCALL": told, "IKCONFIG": told, "MODULES": told,
		"MODULE_SIG_FORCE": told,
	}
}

// facts reads CONFIG_ values of a kernel's configuration: y, m, or n for an option that is not set. No configuration gives
// no facts.
func facts(config []byte) map[string]string {
	if len(config) == 0 {
		return nil
	}
	found := map[string]string{}
	for name := range options() {
		found[name] = "n"
	}
	lines := bufio.NewScanner(bytes.NewReader(config))
	for lines.Scan() {
		name, value, ok := strings.Cut(strings.TrimPrefix(lines.Text(), "CONFIG_"), "=")
		if _, wanted := found[name]; ok && wanted {
			found[name] = value
		}
	}
	return found
}

// refuse reports everything that a kernel lacks to serve a guest, at once. Without facts it is taken on trust.
func refuse(facts map[string]string, haveModules bool) error {
	if facts == nil {
		return nil
	}
	has := func(name string) bool { return facts[name] == "y" || facts[name] == "m" && haveModules }
	var missing []string
	for name, need := range options() {
		if need == fixed && facts[name] != "y" || need == module && !has(name) {
			missing = append(missing, "CONFIG_"+name)
		}
	}
	if !has("VIRTIO_CONSOLE") && !has("VIRTIO_VSOCKETS") { // the control channel is one or the other
		missing = append(missing, "CONFIG_VIRTIO_CONSOLE")
	}
	if facts["ACPI"] != "y" && facts["VIRTIO_MMIO_CMDLINE_DEVICES"] != "y" { // how devices are found
		missing = append(missing, "CONFIG_ACPI")
	}
	if len(missing) == 0 {
		return nil
	}
	slices.Sort(missing)
	hint := "take a kernel that has them, such as Debian's " + DefaultPackage
	if !haveModules {
		hint = "give the kernel's modules with --modules, or " + hint
	}
	return errkind.WithHint(errkind.New(api.KindInvalid, "kernel cannot serve a guest: it lacks %s", strings.Join(missing, ", ")), "%s", hint)
}

// bootModules are what a guest loads before it reaches its root: disks, file system, network, entropy, control channel.
// Vital ones must exist, as files or in the kernel. Those of pci are loaded only where the VMM's devices are on PCI, as on
// QEMU's q35. Every one costs each start some 10 ms under TCG, so what can wait until the module tree is mounted is not among
// them, and the agent loads vsock's only where there is such a device.
func bootModules() (vital, welcome, pci []string) {
	return []string{"virtio_mmio", "virtio_blk", "ext4", "virtio_net"},
		[]string{"virtio_rng", "virtio_console", "vmw_vsock_virtio_transport"}, []string{"virtio_pci"}
}
