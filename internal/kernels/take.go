package kernels

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/disk/ext4"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/host"
	"github.com/banger-vm/banger/internal/kernels/bzimage"
	"github.com/banger-vm/banger/internal/kernels/kmod"
)

// The files of a kernel's directory.
const (
	imageFile   = "vmlinux"
	modulesFile = "modules.ext4"
	bootDir     = "boot"
)

// takeImage writes the kernel image as ELF, fills in k's release and format, and returns the configuration.
func takeImage(src source, out string, k *banger.Kernel) ([]byte, error) {
	in, err := os.Open(src.image)
	if err != nil {
		return nil, errkind.New(api.KindNotFound, "kernel image: %w", err)
	}
	defer in.Close()
	f, err := os.OpenFile(filepath.Join(out, imageFile), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o444)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if bzimage.Is(in) {
		err = bzimage.Extract(f, in)
	} else {
		_, err = io.Copy(f, in)
	}
	if err != nil {
		return nil, err
	}
	elf, err := bzimage.Read(f)
	if err != nil {
		return nil, err
	}
	if !elf.PVH {
		return nil, errkind.WithHint(errkind.New(api.KindInvalid, "kernel %s has no PVH entry point", elf.Release),
			"build it with CONFIG_PVH=y; Debian's kernels have it")
	}
	k.Release, k.Format = elf.Release, "elf"
	config := elf.Config
	if src.config != "" {
		if b, err := os.ReadFile(src.config); err == nil {
			config = b
		} else if !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	return config, f.Sync()
}

// interestingOptions are those that decide what a kernel can serve.
func interestingOptions() []string {
	return []string{
		"VIRTIO_BLK", "VIRTIO_NET", "VIRTIO_CONSOLE", "VIRTIO_MMIO", "VIRTIO_MMIO_CMDLINE_DEVICES", "VIRTIO_PCI",
		"EXT4_FS", "SQUASHFS", "EROFS_FS", "OVERLAY_FS", "VSOCKETS", "VIRTIO_VSOCKETS", "SERIAL_8250_CONSOLE", "PVH",
		"BLK_DEV_INITRD", "DEVTMPFS", "IP_PNP", "CGROUPS", "NF_TABLES", "ACPI", "IKCONFIG", "HW_RANDOM_VIRTIO",
	}
}

// facts reads CONFIG_ values: y, m, or n for an option that is not set. No configuration gives no facts.
func facts(config []byte) map[string]string {
	if len(config) == 0 {
		return nil
	}
	found := map[string]string{}
	for _, name := range interestingOptions() {
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

// refuse reports what a kernel lacks to serve a guest. Without facts it is taken on trust.
func refuse(facts map[string]string, modules bool) error {
	if facts == nil {
		return nil
	}
	var missing []string
	for _, name := range []string{"VIRTIO_BLK", "VIRTIO_CONSOLE", "VIRTIO_MMIO", "EXT4_FS"} {
		if v := facts[name]; v == "n" || v == "m" && !modules {
			missing = append(missing, "CONFIG_"+name)
		}
	}
	for _, name := range []string{"SERIAL_8250_CONSOLE", "BLK_DEV_INITRD", "DEVTMPFS", "PVH", "ACPI"} {
		if facts[name] != "y" {
			missing = append(missing, "CONFIG_"+name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return errkind.WithHint(errkind.New(api.KindInvalid, "kernel lacks %s", strings.Join(missing, ", ")),
		"give its modules with --modules, or take a kernel that has them, such as Debian's %s", DefaultPackage)
}

// bootModules are what a guest needs before it reaches its root and its control channel; vital ones must exist.
func bootModules() (vital, welcome []string) {
	return []string{"virtio_mmio", "virtio_blk", "virtio_console", "ext4"},
		[]string{"crc32c_generic", "virtio_pci", "virtio_net", "virtio_rng"}
}

// takeModules copies the boot modules to out/boot and makes the file system of the whole tree. The tree gets what modprobe
// needs in the guest. k's paths are set by publish.
func takeModules(ctx context.Context, dir, out string, k *banger.Kernel) error {
	tree := dir
	if !strings.HasPrefix(dir, filepath.Dir(out)) { // not our own unpacked copy: it is not changed
		tree = filepath.Join(filepath.Dir(out), "copy", "lib", "modules", k.Release)
		if err := os.MkdirAll(filepath.Dir(tree), 0o700); err != nil {
			return err
		}
		if err := os.CopyFS(tree, os.DirFS(dir)); err != nil {
			return errkind.New(api.KindInvalid, "copy kernel modules: %w", err)
		}
	}
	t, err := kmod.Open(tree)
	if err != nil {
		return err
	}
	if err := t.Uncompress(ctx, runtime.NumCPU(), func() {}); err != nil {
		return err
	}
	root := filepath.Dir(filepath.Dir(filepath.Dir(tree)))
	if err := host.Run(ctx, host.Command{Argv: []string{"depmod", "-b", root, k.Release}}); err != nil {
		return err
	}
	if err := copyBoot(t, filepath.Join(out, bootDir), k); err != nil {
		return err
	}
	k.Modules, k.ModulesType = modulesFile, "ext4"
	return treeImage(ctx, tree, filepath.Join(out, modulesFile))
}

func copyBoot(t *kmod.Tree, dir string, k *banger.Kernel) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	vital, welcome := bootModules()
	_, missing, err := t.Resolve(vital)
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		return errkind.New(api.KindInvalid, "kernel lacks the modules %s", strings.Join(missing, ", "))
	}
	all, _, err := t.Resolve(append(vital, welcome...))
	if err != nil {
		return err
	}
	for _, path := range all {
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name := filepath.Base(path)
		if err := host.WriteFile(filepath.Join(dir, name), b, 0o444); err != nil {
			return err
		}
		k.BootModules = append(k.BootModules, name)
	}
	return nil
}

// treeImage makes a read-only file system whose root is the directory tree.
func treeImage(ctx context.Context, tree, path string) error {
	for _, link := range []string{"build", "source"} { // lead to headers that are not there
		if err := os.Remove(filepath.Join(tree, link)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	size, err := sizeOf(tree)
	if err != nil {
		return err
	}
	r, w := io.Pipe()
	go func() {
		tw := tar.NewWriter(w)
		w.CloseWithError(errors.Join(tw.AddFS(os.DirFS(tree)), tw.Close()))
	}()
	err = ext4.FromTar(ctx, r, path, ext4.Options{Size: size, Label: "modules", ReadOnly: true})
	r.CloseWithError(err)
	if err != nil {
		return fmt.Errorf("make the module tree's file system: %w", err)
	}
	return os.Chmod(path, 0o444)
}

// sizeOf returns a size that holds the tree as a file system, with room for its metadata.
func sizeOf(tree string) (int64, error) {
	const slack = 32 << 20
	const perFile = 8 << 10
	var sum int64 = slack
	err := filepath.WalkDir(tree, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err == nil {
			sum += info.Size() + perFile
		}
		return err
	})
	return sum + sum/10, err
}
