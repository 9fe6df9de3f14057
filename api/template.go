package api

import "time"

// Template is a guest that was booted once and saved, from which VMs start warm: without a boot.
type Template struct {
	ID       string    `json:"id"`
	Image    string    `json:"image"`
	ImageID  string    `json:"image_id"`
	KernelID string    `json:"kernel_id"`
	Engine   string    `json:"engine"` // VMM, its version, machine type and accelerator
	VCPU     int       `json:"vcpu"`
	MemMiB   int       `json:"mem_mib"`
	Size     int64     `json:"size"` // bytes on disk
	Created  time.Time `json:"created"`
	LastUsed time.Time `json:"last_used"`
	Error    string    `json:"error,omitempty"` // what is wrong with it: it is not used, and made anew
}

// TemplateList is the result of template.list, those that were used last at the end.
type TemplateList struct {
	Templates []Template `json:"templates"`
}

// TemplateBuild is the parameter of template.build, as for vm.create. Zero values are the defaults.
type TemplateBuild struct {
	Image  string `json:"image,omitempty"`   // name, id or prefix of one; the default image is built when there is none
	Kernel string `json:"kernel,omitempty"`  // as Image; empty: the one that the image names
	VCPU   int    `json:"vcpu,omitempty"`    // processors
	MemMiB int    `json:"mem_mib,omitempty"` // memory
	VMM    string `json:"vmm,omitempty"`     // auto (default), qemu, firecracker
}

// TemplatePrune is the parameter of template.prune.
type TemplatePrune struct {
	All bool `json:"all,omitempty"` // every template, and not only those that are of no use any more or beyond template_budget
}
