package api

import "time"

// Image is a root filesystem that VMs are cloned from.
type Image struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	Managed   bool      `json:"managed"`   // false: registered, its files are the user's
	Kernel    string    `json:"kernel"`    // name of the kernel it is booted with by default
	Init      string    `json:"init"`      // agent, or the path of the image's own init
	Source    string    `json:"source"`    // what it was made from, such as debian:bookworm
	Digest    string    `json:"digest"`    // sha256 of the root filesystem's tar
	RootSize  int64     `json:"root_size"` // bytes, as the guest sees it
	WorkSize  int64     `json:"work_size"` // bytes, of the work-seed
	Allocated int64     `json:"allocated"` // bytes on the host's disk
	Packages  int       `json:"packages"`  // how many, 0 when unknown
	Created   time.Time `json:"created"`
	Run       *ImageRun `json:"run,omitempty"` // what an OCI image says of its use
	VMs       []string  `json:"vms,omitempty"` // names of the VMs that use it
	Dir       string    `json:"dir"`           // on the host, of its files
}

// ImageList is the result of image.list.
type ImageList struct {
	Images []Image `json:"images"`
}

// ImageBuild is the parameter of image.build.begin: a Debian root filesystem made with mmdebstrap.
type ImageBuild struct {
	Name     string   `json:"name"`                // of the image
	Suite    string   `json:"suite,omitempty"`     // bookworm by default
	Variant  string   `json:"variant,omitempty"`   // mmdebstrap's; apt by default
	Packages []string `json:"packages,omitempty"`  // on top of the default ones
	Mirror   string   `json:"mirror,omitempty"`    // default: the host's apt sources
	Kernel   string   `json:"kernel,omitempty"`    // name of the kernel to boot it with; default: the configured one
	Init     string   `json:"init,omitempty"`      // agent by default
	RootSize int64    `json:"root_size,omitempty"` // bytes, whole MiB, at least 512; default 8 GiB; sparse
	Replace  bool     `json:"replace,omitempty"`   // take the name over from an existing image
}

// ImageRecipe is the parameter of image.recipe.begin: an image made of another one by steps that run in a guest.
type ImageRecipe struct {
	Name     string         `json:"name"`                // of the image
	Base     string         `json:"base"`                // name, id or unique id prefix of the image to begin with
	Kernel   string         `json:"kernel,omitempty"`    // name of the kernel to boot it with; default: the base's
	Init     string         `json:"init,omitempty"`      // default: the base's; steps run under the agent in any case
	RootSize int64          `json:"root_size,omitempty"` // bytes, whole MiB, at least the base's, which is the default; sparse
	Env      []string       `json:"env,omitempty"`       // NAME=VALUE, for steps and for every command in the image's VMs
	User     string         `json:"user,omitempty"`      // of the steps: name or uid, optional :group; default root
	Files    []RecipeFile   `json:"files,omitempty"`     // written before the first step
	Steps    []RecipeStep   `json:"steps,omitempty"`     // run in order
	Secrets  []RecipeSecret `json:"secrets,omitempty"`   // each named by a step
	Replace  bool           `json:"replace,omitempty"`   // take the name over from an existing image
	NoCache  bool           `json:"no_cache,omitempty"`  // build although the image of that name was made by the same recipe
}

// RecipeFile is a file that a recipe brings. It belongs to root.
type RecipeFile struct {
	Path    string `json:"path"` // absolute
	Mode    int64  `json:"mode"` // permissions, as of chmod(2)
	Content []byte `json:"content"`
}

// RecipeStep is a piece of shell script, of which every command must succeed.
type RecipeStep struct {
	Run     string   `json:"run"`
	Secrets []string `json:"secrets,omitempty"` // ids: the step, and no other, has them as environment variables
}

// RecipeSecret is what steps need and the image must not hold. It is in no file and in no log of ours.
type RecipeSecret struct {
	ID    string `json:"id"` // a variable's name
	Value []byte `json:"value"`
}

// ImagePull is the parameter of image.pull.begin: an image of a registry, or of a layout or an archive on the daemon's host.
type ImagePull struct {
	// Ref is REPOSITORY[:TAG][@DIGEST] in a registry, oci:DIR[:TAG], oci-archive:FILE[:TAG] or docker-archive:FILE[:TAG]; paths are
	// absolute.
	Ref      string `json:"ref"`
	Name     string `json:"name,omitempty"`      // of the image; default: made from Ref
	Platform string `json:"platform,omitempty"`  // OS/ARCH[/VARIANT], of those there are; default: the host's
	Kernel   string `json:"kernel,omitempty"`    // name of the kernel to boot it with; default: the configured one
	Init     string `json:"init,omitempty"`      // agent by default
	RootSize int64  `json:"root_size,omitempty"` // bytes, whole MiB, at least 512; default 8 GiB; sparse
	Replace  bool   `json:"replace,omitempty"`   // take the name over from an existing image
}

// ImageRun is how an OCI image is to be used.
type ImageRun struct {
	Command []string `json:"command,omitempty"` // entry point and arguments: what vm run runs where no command is given
	Env     []string `json:"env,omitempty"`     // NAME=VALUE, for every command
	User    string   `json:"user,omitempty"`    // of Command
	Dir     string   `json:"dir,omitempty"`     // of Command
}

// Kernel is a kernel image with its modules and facts.
type Kernel struct {
	ID        string            `json:"id"`
	Name      string            `json:"name"`
	Release   string            `json:"release"`         // uname -r
	Arch      string            `json:"arch"`            // x86_64
	Source    string            `json:"source"`          // where it came from, such as a package and its version
	Format    string            `json:"format"`          // elf or bzimage
	Allocated int64             `json:"allocated"`       // bytes on the host's disk
	Facts     map[string]string `json:"facts,omitempty"` // CONFIG_ values that matter: y, m or n
	Created   time.Time         `json:"created"`
	Images    []string          `json:"images,omitempty"` // names of the images that name it
	Dir       string            `json:"dir"`              // on the host, of its files
}

// KernelList is the result of kernel.list.
type KernelList struct {
	Kernels []Kernel `json:"kernels"`
}

// KernelImport is the parameter of kernel.import.begin. Exactly one of Deb, Host and Path is set.
type KernelImport struct {
	Name    string `json:"name,omitempty"`    // default: made from where it comes from
	Deb     string `json:"deb,omitempty"`     // a Debian package's name, or the path of a .deb
	Host    bool   `json:"host,omitempty"`    // the running host's kernel and modules
	Path    string `json:"path,omitempty"`    // a kernel image, bzImage or ELF
	Modules string `json:"modules,omitempty"` // with Path: a directory lib/modules/RELEASE
	Config  string `json:"config,omitempty"`  // with Path: its configuration file, when it is not built in
}
