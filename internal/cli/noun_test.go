package cli_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/cli/fakedaemon"
	"github.com/banger-vm/banger/internal/errkind"
)

func TestImages(t *testing.T) {
	d := fakedaemon.Start(t)
	img := api.Image{ID: "bbbbbbbbbbbb", Name: "debian", Managed: true, Kernel: "cloud", Init: "agent", Source: "debian:bookworm", Digest: "sha256:00",
		RootSize: 2 << 30, WorkSize: 1 << 30, Allocated: 310 << 20, Packages: 140, Created: time.Now().Add(-time.Minute), VMs: []string{"web"}, Dir: "/i"}
	d.Result(api.MethodImageList, api.ImageList{Images: []api.Image{img}})
	d.On(api.MethodImageGet, func(c *fakedaemon.Call) {
		var p api.Ref
		if c.Decode(&p); p.Ref != "debian" {
			c.Fail(errkind.New(api.KindNotFound, "no image %q", p.Ref))
			return
		}
		c.Reply(img)
	})
	want := "NAME    ID            SOURCE           KERNEL  INIT   SIZE  ON DISK  VMS  AGE\n" +
		"debian  bbbbbbbbbbbb  debian:bookworm  cloud   agent  2G    310M     1    1m\n"
	if diff := cmp.Diff(want, banger(t, d).ok("image", "list").stdout); diff != "" {
		t.Error(diff)
	}
	if got := banger(t, d).ok("image", "list", "-q", "-o", "json", "--format", "{{.Name}}").stdout; got != "debian\n" {
		t.Errorf("got %q", got)
	}
	if got := banger(t, d).ok("image", "show", "debian").stdout; !strings.Contains(got, "Packages:   140\n") || !strings.Contains(got, "VMs:        web\n") {
		t.Errorf("got\n%s", got)
	}
	if got := banger(t, d).ok("image", "show", "-q", "-o", "json", "--format", "{{.Dir}}", "debian").stdout; got != "/i\n" {
		t.Errorf("got %q", got)
	}
	d.Error(api.MethodImageDelete, errkind.WithHint(errkind.New(api.KindPrecondition, `image "debian" is used by web`), "delete the VM first"))
	c := banger(t, d).run("image", "delete", "nope", "debian")
	if c.code != 66 || c.stderr != "banger: no image \"nope\"\nbanger: image \"debian\" is used by web\nhint: delete the VM first\n" {
		t.Errorf("exit status %d, %s", c.code, c.stderr)
	}
}

func TestImageBuild(t *testing.T) {
	d := fakedaemon.Start(t)
	operation(d, api.MethodImageBuildBegin, "bbbbbbbbbbbb")
	c := banger(t, d).ok("image", "build", "debian", "go-dev", "--suite", "trixie", "--variant", "minbase", "--package", "golang", "--package", "make",
		"--mirror", "file:/mirror", "--kernel", "cloud", "--init", "/sbin/init", "--root-size", "4G", "--replace")
	if c.stdout != "go-dev\n" || !strings.Contains(c.stderr, "boot ") {
		t.Errorf("stdout %q, stderr %q", c.stdout, c.stderr)
	}
	var got api.ImageBuild
	d.Params(api.MethodImageBuildBegin, &got)
	want := api.ImageBuild{Name: "go-dev", Suite: "trixie", Variant: "minbase", Packages: []string{"golang", "make"}, Mirror: "file:/mirror",
		Kernel: "cloud", Init: "/sbin/init", RootSize: 4 << 30, Replace: true}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for want, args := range map[string][]string{"debian\n": nil, "debian-trixie\n": {"--suite", "trixie"}} {
		if got := banger(t, d).ok(append([]string{"image", "build", "debian", "--quiet"}, args...)...); got.stdout != want || got.stderr != "" {
			t.Errorf("got %q, %q", got.stdout, got.stderr)
		}
	}
	watched := hanging(d, api.MethodImageBuildBegin, api.Operation{ID: "1", State: api.OperationCanceled})
	c = banger(t, d)
	go func() { <-watched; c.signal(syscall.SIGINT) }()
	c.fails(130, "interrupted by SIGINT", "image", "build", "debian")
}

func TestImageRecipe(t *testing.T) {
	d := fakedaemon.Start(t)
	operation(d, api.MethodImageRecipeBegin, "bbbbbbbbbbbb")
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	secret := write("token", "s3cr3t\n")
	write("motd", "hello\n")
	path := write("dev.toml", `base = "debian"
env = ["A=1"]
user = "ann"
kernel = "cloud"
init = "/sbin/init"
root-size = "16G"
[[file]]
source = "motd"
path = "/etc/motd"
[[file]]
content = "x"
path = "/bin/x"
mode = "0755"
[[step]]
run = "make"
secrets = ["TOKEN"]
`)
	if c := banger(t, d).ok("image", "build", "-f", path, "--secret", "id=TOKEN,src="+secret, "--replace", "--no-cache", "-q"); c.stdout != "dev\n" || c.stderr != "" {
		t.Errorf("stdout %q, stderr %q", c.stdout, c.stderr)
	}
	var got api.ImageRecipe
	d.Params(api.MethodImageRecipeBegin, &got)
	want := api.ImageRecipe{Name: "dev", Base: "debian", Kernel: "cloud", Init: "/sbin/init", RootSize: 16 << 30, Env: []string{"A=1"}, User: "ann",
		Files:   []api.RecipeFile{{Path: "/etc/motd", Mode: 0o644, Content: []byte("hello\n")}, {Path: "/bin/x", Mode: 0o755, Content: []byte("x")}},
		Steps:   []api.RecipeStep{{Run: "make", Secrets: []string{"TOKEN"}}},
		Secrets: []api.RecipeSecret{{ID: "TOKEN", Value: []byte("s3cr3t\n")}}, Replace: true, NoCache: true}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if c := banger(t, d).ok("image", "build", "-f", path, "--name", "other"); c.stdout != "other\n" {
		t.Errorf("stdout %q", c.stdout)
	}
	for text, says := range map[string]string{
		"base = \"debian\"\nbass = 1\n":            `:2: unknown key "bass"`,
		"base = \n":                                ":1: ",
		"root-size = \"much\"\n":                   "root-size",
		"[[file]]\npath = \"/a\"\nmode = \"rw\"\n": `file "/a": bad mode "rw"`,
		"[[file]]\npath = \"/a\"\nsource = \"motd\"\ncontent = \"x\"\n":             "both source and content",
		"[[file]]\npath = \"/a\"\ncontent = \"" + strings.Repeat("x", 3<<20) + "\"": "its files have 3M together, and may have 2M",
	} {
		banger(t, d).fails(64, says, "image", "build", "-f", write("bad.toml", text))
	}
	banger(t, d).fails(64, "no recipe", "image", "build")
	banger(t, d).fails(66, "no recipe "+dir+"/none.toml", "image", "build", "-f", dir+"/none.toml")
	banger(t, d).fails(64, `bad secret "TOKEN"`, "image", "build", "-f", path, "--secret", "TOKEN")
}

func TestKernels(t *testing.T) {
	d := fakedaemon.Start(t)
	k := api.Kernel{ID: "cccccccccccc", Name: "cloud", Release: "6.1.0-cloud", Arch: "x86_64", Source: "deb", Format: "elf", Allocated: 90 << 20,
		Facts: map[string]string{"VIRTIO_BLK": "m", "EXT4_FS": "y"}, Created: time.Now(), Images: []string{"debian"}, Dir: "/k"}
	d.Result(api.MethodKernelList, api.KernelList{Kernels: []api.Kernel{k}})
	d.Result(api.MethodKernelGet, k)
	d.Result(api.MethodKernelDelete, api.Empty{})
	want := "NAME   ID            RELEASE      ARCH    SOURCE  ON DISK  IMAGES  AGE\n" +
		"cloud  cccccccccccc  6.1.0-cloud  x86_64  deb     90M      debian  0s\n"
	if diff := cmp.Diff(want, banger(t, d).ok("kernel", "list").stdout); diff != "" {
		t.Error(diff)
	}
	if got := banger(t, d).ok("kernel", "list", "-q", "-o", "json", "--format", "{{.Release}}").stdout; got != "6.1.0-cloud\n" {
		t.Errorf("got %q", got)
	}
	if got := banger(t, d).ok("kernel", "show", "cloud").stdout; !strings.Contains(got, "Facts:         EXT4_FS=y\n               VIRTIO_BLK=m\n") {
		t.Errorf("got\n%s", got)
	}
	if got := banger(t, d).ok("kernel", "show", "-q", "-o", "json", "--format", "{{.Dir}}", "cloud").stdout; got != "/k\n" {
		t.Errorf("got %q", got)
	}
	if got := banger(t, d).ok("kernel", "delete", "cloud", "ccc").stdout; got != "cloud\n" {
		t.Errorf("one kernel under two references: got %q", got)
	}
}

func TestKernelImport(t *testing.T) {
	d := fakedaemon.Start(t)
	operation(d, api.MethodKernelImportBegin, "cccccccccccc")
	d.Result(api.MethodKernelGet, api.Kernel{ID: "cccccccccccc", Name: "mine"})
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		want api.KernelImport
	}{
		{[]string{"--name", "mine", "--path", "bzImage", "--modules", "m", "--config", "/c"},
			api.KernelImport{Name: "mine", Path: filepath.Join(wd, "bzImage"), Modules: filepath.Join(wd, "m"), Config: "/c"}},
		{[]string{"--deb", "linux-image-cloud-amd64", "--quiet"}, api.KernelImport{Deb: "linux-image-cloud-amd64"}},
		{[]string{"--deb", "x.deb"}, api.KernelImport{Deb: filepath.Join(wd, "x.deb")}},
		{[]string{"--host"}, api.KernelImport{Host: true}},
	} {
		if got := banger(t, d).ok(append([]string{"kernel", "import"}, c.args...)...).stdout; got != "mine\n" {
			t.Errorf("got %q", got)
		}
		var got api.KernelImport
		d.Params(api.MethodKernelImportBegin, &got)
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%q: %s", c.args, diff)
		}
	}
}

func TestOperations(t *testing.T) {
	d := fakedaemon.Start(t)
	made := time.Now().Add(-time.Hour)
	op := api.Operation{ID: "0123456789ab", Kind: "vm.create", Subject: "web", State: api.OperationFailed, Created: made, Ended: made.Add(1500 * time.Millisecond),
		Error: &api.Error{Message: "boom", Hint: "duck"}, Stages: []api.Stage{{Name: "boot", TookMS: 1480}, {Name: "wait", TookMS: -1}}}
	d.Result(api.MethodOperationList, api.OperationList{Operations: []api.Operation{op}})
	d.Result(api.MethodOperationGet, op)
	want := "ID            KIND       SUBJECT  STATE   STAGE  TOOK   AGE\n0123456789ab  vm.create  web      failed  -      1.50s  1h\n"
	if diff := cmp.Diff(want, banger(t, d).ok("operation", "list").stdout); diff != "" {
		t.Error(diff)
	}
	if got := banger(t, d).ok("op", "ls", "-q", "-o", "json", "--format", "{{.Kind}}").stdout; got != "vm.create\n" {
		t.Errorf("got %q", got)
	}
	if got := banger(t, d).ok("operation", "show", "0123").stdout; !strings.Contains(got, "Error:    boom\nHint:     duck\n  boot:   1.48s\n  wait:   …\n") {
		t.Errorf("got\n%s", got)
	}
	if got := banger(t, d).ok("operation", "show", "0123", "-q", "-o", "json", "--format", "{{.State}}").stdout; got != "failed\n" {
		t.Errorf("got %q", got)
	}
	banger(t, d).fails(78, "operation 0123456789ab has ended: it failed", "operation", "cancel", "0123")
	op.State = api.OperationRunning
	d.Result(api.MethodOperationGet, op)
	d.Result(api.MethodOperationCancel, op)
	if got := banger(t, d).ok("operation", "cancel", "0123").stdout; got != "0123456789ab\n" {
		t.Errorf("got %q", got)
	}
}

func TestTemplates(t *testing.T) {
	d := fakedaemon.Start(t)
	good := api.Template{ID: "cccccccccccc", Image: "debian", Engine: "qemu 7.2 (microvm, tcg)", VCPU: 1, MemMiB: 1024, Size: 115 << 20,
		LastUsed: time.Now().Add(-time.Minute)}
	bad := api.Template{ID: "dddddddddddd", VCPU: 2, MemMiB: 512, Error: "the template is damaged", LastUsed: good.LastUsed}
	d.Result(api.MethodTemplateList, api.TemplateList{Templates: []api.Template{bad, good}})
	want := "ID            IMAGE   VCPU  MEMORY  ENGINE                   ON DISK  USED  ERROR\n" +
		"dddddddddddd  -       2     512M    -                        -        1m    the template is damaged\n" +
		"cccccccccccc  debian  1     1G      qemu 7.2 (microvm, tcg)  115M     1m    -\n"
	if diff := cmp.Diff(want, banger(t, d).ok("template", "list").stdout); diff != "" {
		t.Error(diff)
	}
	if got := banger(t, d).ok("template", "list", "-q", "-o", "json", "--format", "{{.ID}}").stdout; got != "dddddddddddd\ncccccccccccc\n" {
		t.Errorf("got %q", got)
	}
	operation(d, api.MethodTemplateBuild, "cccccccccccc")
	c := banger(t, d).ok("template", "build", "--image", "debian", "--kernel", "cloud", "--vmm", "qemu", "--vcpu", "2", "--memory", "512M")
	var build api.TemplateBuild
	d.Params(api.MethodTemplateBuild, &build)
	if diff := cmp.Diff(api.TemplateBuild{Image: "debian", Kernel: "cloud", VMM: "qemu", VCPU: 2, MemMiB: 512}, build); diff != "" || c.stdout != "cccccccccccc\n" {
		t.Errorf("stdout %q, %s", c.stdout, diff)
	}
	if c := banger(t, d).ok("template", "build", "--quiet"); c.stderr != "" {
		t.Errorf("stderr %q", c.stderr)
	}
	d.On(api.MethodTemplateDelete, func(c *fakedaemon.Call) {
		var p api.Ref
		if c.Decode(&p); p.Ref != "cccccccccccc" {
			c.Fail(errkind.New(api.KindNotFound, "no template %q", p.Ref))
			return
		}
		c.Reply(api.Empty{})
	})
	banger(t, d).fails(66, `no template "nope"`, "template", "delete", "nope", "cccccccccccc")
	d.Result(api.MethodTemplatePrune, api.TemplateList{Templates: []api.Template{bad}})
	if got := banger(t, d).ok("template", "prune", "--all", "-q").stdout; got != "dddddddddddd\n" {
		t.Errorf("got %q", got)
	}
	var prune api.TemplatePrune
	if d.Params(api.MethodTemplatePrune, &prune); !prune.All {
		t.Error("all was not asked for")
	}
	if got := banger(t, d).ok("template", "prune", "-o", "json", "--format", "{{.ID}}").stdout; got != "dddddddddddd\n" {
		t.Errorf("got %q", got)
	}
}

func TestImagePull(t *testing.T) {
	d := fakedaemon.Start(t)
	d.Result(api.MethodImageGet, api.Image{ID: "bbbbbbbbbbbb", Name: "alpine-3-20", Run: &api.ImageRun{Command: []string{"sh", "-c"}, Env: []string{"A=1"}, User: "app", Dir: "/srv"}})
	operation(d, api.MethodImagePullBegin, "bbbbbbbbbbbb")
	c := banger(t, d).ok("image", "pull", "alpine:3.20", "--name", "small", "--platform", "linux/amd64", "--kernel", "cloud", "--init", "/sbin/init",
		"--root-size", "4G", "--replace")
	if c.stdout != "alpine-3-20\n" || !strings.Contains(c.stderr, "boot ") {
		t.Errorf("stdout %q, stderr %q", c.stdout, c.stderr)
	}
	var got api.ImagePull
	d.Params(api.MethodImagePullBegin, &got)
	want := api.ImagePull{Ref: "alpine:3.20", Name: "small", Platform: "linux/amd64", Kernel: "cloud", Init: "/sbin/init", RootSize: 4 << 30, Replace: true}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got := banger(t, d).ok("image", "show", "alpine-3-20").stdout; !strings.Contains(got, "sh -c\n") || !strings.Contains(got, "/srv\n") {
		t.Errorf("got\n%s", got)
	}
	t.Run("paths become absolute, and an archive comes from standard input", func(t *testing.T) {
		banger(t, d).ok("image", "pull", "--quiet", "oci:some/dir:tag")
		if d.Params(api.MethodImagePullBegin, &got); !strings.HasPrefix(got.Ref, "oci:/") || !strings.HasSuffix(got.Ref, "/some/dir:tag") {
			t.Errorf("got %q", got.Ref)
		}
		for first, scheme := range map[string]string{"oci-layout": "oci-archive:/", "manifest.json": "docker-archive:/"} {
			var b bytes.Buffer
			w := tar.NewWriter(&b)
			if err := errors.Join(w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: first}), w.Close()); err != nil {
				t.Fatal(err)
			}
			banger(t, d).stdin(b.String()).ok("image", "pull", "--name", "x", "-")
			d.Params(api.MethodImagePullBegin, &got)
			if _, err := os.Stat(got.Ref[len(scheme)-1:]); !strings.HasPrefix(got.Ref, scheme) || !errors.Is(err, os.ErrNotExist) {
				t.Errorf("got %q, and its file was left: %v", got.Ref, err)
			}
		}
		banger(t, d).stdin("x").fails(64, "neither an OCI nor a Docker archive", "image", "pull", "--name", "x", "-")
		banger(t, d).stdin("x").fails(64, "has no name", "image", "pull", "-")
		banger(t, d).fails(64, "bad image name", "image", "pull", "--name", "X!", "alpine")
	})
}
