package qemu

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/hostnet/usernet"
	"github.com/banger-vm/banger/internal/vmm"
)

// tcgBuffer caps TCG's translation cache, in MiB; a larger one costs memory and saves no time.
const tcgBuffer = 64

// serialPorts is how many ports the virtio-serial device has: the first is kept for a console (hw/char/virtio-serial-bus.c),
// the second is the agent's. The guest's driver sets up two queues for each that there could be, 31 if nothing is said.
const serialPorts = 2

// tcgCPU is every feature that TCG emulates but three that it is slow at. With fast string operations (erms, fsrm) the kernel
// clears and copies memory byte by byte instead of in words, which is a tenth of a boot; with five-level page tables (la57)
// every miss in the translation buffer has one more level to walk.
const tcgCPU = "max,-erms,-fsrm,-la57"

// argv is QEMU's command line for s.
func (d *Driver) argv(s vmm.Spec) []string {
	args := []string{
		d.binary, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-name", "guest=" + string(s.ID), "-pidfile", pidFile(s.RunDir),
		"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
		"-m", strconv.Itoa(s.MemMiB), "-smp", strconv.Itoa(s.VCPU),
		"-chardev", "file,id=con,append=on,path=" + comma(filepath.Join(s.Dir, vmm.ConsoleLog)), "-serial", "chardev:con",
	}
	args = append(args, d.originArgs(s)...)
	if d.accel.name == vmm.AccelKVM {
		args = append(args, "-accel", "kvm", "-cpu", "host")
	} else {
		args = append(args, "-accel", fmt.Sprintf("tcg,tb-size=%d", tcgBuffer), "-cpu", tcgCPU)
	}
	dev := d.deviceSuffix()
	args = append(args, "-device", "virtio-rng-"+dev,
		"-device", fmt.Sprintf("virtio-serial-%s,max_ports=%d", dev, serialPorts),
		"-chardev", "socket,id=agent,server=on,wait=off,path="+comma(agentSocket(s.RunDir)),
		"-device", "virtserialport,chardev=agent,name="+guestapi.PortName,
		// QEMU opens sockets in the order of its arguments: when this one accepts, the agent's does too.
		"-qmp", "unix:"+comma(qmpSocket(s.RunDir))+",server=on,wait=off")
	for n, disk := range s.Disks {
		args = append(args, diskArgs(n, disk, dev)...)
	}
	if s.NIC != nil {
		args = append(args, nicArgs(*s.NIC, dev)...)
	}
	return args
}

// originArgs say what the machine begins with: a kernel, or, where it is restored, a memory that has one.
func (d *Driver) originArgs(s vmm.Spec) []string {
	const memory = "ram"
	file := func(path, share string) []string {
		return []string{"-M", d.machine() + ",memory-backend=" + memory,
			"-object", fmt.Sprintf("memory-backend-file,id=%s,size=%dM,share=%s,mem-path=%s", memory, s.MemMiB, share, comma(path))}
	}
	switch {
	case s.Restore != nil:
		return append(file(s.Restore.Memory, "off"), "-incoming", "defer", "-S")
	case s.Memory != "":
		return append(file(s.Memory, "on"), d.kernelArgs(s)...)
	}
	return append([]string{"-M", d.machine()}, d.kernelArgs(s)...)
}

func (d *Driver) kernelArgs(s vmm.Spec) []string {
	facts := vmm.BootFacts{Accel: d.accel.name, Console: "ttyS0"}
	if d.accel.name == vmm.AccelTCG && d.machine() == "microvm" {
		facts.TSCKHz = d.tscKHz
	}
	return []string{"-kernel", s.Kernel, "-initrd", s.Initrd, "-append", strings.TrimSpace(vmm.BootArgs(facts) + " " + s.Args)}
}

// deviceSuffix is the bus part of virtio device names.
func (d *Driver) deviceSuffix() string {
	if d.machine() == "microvm" {
		return "device"
	}
	return "pci"
}

func diskArgs(n int, disk vmm.Disk, dev string) []string {
	id := "disk" + strconv.Itoa(n)
	drive := fmt.Sprintf("if=none,id=%s,format=%s,file=%s", id, disk.Format, comma(disk.Path))
	if disk.ReadOnly {
		drive += ",readonly=on,file.locking=off" // shared by all VMs
	} else {
		drive += ",discard=unmap,detect-zeroes=unmap"
	}
	return []string{"-drive", drive, "-device", fmt.Sprintf("virtio-blk-%s,drive=%s", dev, id)}
}

func nicArgs(nic vmm.NIC, dev string) []string {
	netdev := fmt.Sprintf("user,id=net,net=%s,host=%s,dns=%s,ipv6=off", usernet.Network, usernet.Gateway, usernet.DNS)
	if nic.Restrict {
		netdev += ",restrict=on"
	}
	if nic.Tap != "" {
		netdev = "tap,id=net,script=no,downscript=no,ifname=" + nic.Tap
	}
	return []string{"-netdev", netdev, "-device", fmt.Sprintf("virtio-net-%s,netdev=net,mac=%s", dev, nic.MAC)}
}

// comma doubles the commas in a value, as QEMU's option syntax wants.
func comma(s string) string { return strings.ReplaceAll(s, ",", ",,") }
