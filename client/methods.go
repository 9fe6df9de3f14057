package client

import (
	"context"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/guestapi"
)

// Ping asks the daemon who it is.
func (c *Client) Ping(ctx context.Context) (api.Ping, error) {
	return get[api.Ping](ctx, c, api.MethodPing, nil)
}

// Info asks the daemon for its directories, driver and figures.
func (c *Client) Info(ctx context.Context) (api.Info, error) {
	return get[api.Info](ctx, c, api.MethodInfo, nil)
}

// Stop asks the daemon to end. VMs keep running. It returns when the daemon has agreed, which is before it has ended.
func (c *Client) Stop(ctx context.Context) error { return c.call(ctx, api.MethodStop, nil, nil) }

// Doctor runs the daemon's checks of the host and of itself.
func (c *Client) Doctor(ctx context.Context, ask api.DoctorAsk) (api.Doctor, error) {
	return get[api.Doctor](ctx, c, api.MethodDoctor, ask)
}

// Fix is Doctor, and puts right what is safe to: nothing of the user's is touched.
func (c *Client) Fix(ctx context.Context, ask api.DoctorAsk) (api.Doctor, error) {
	return get[api.Doctor](ctx, c, api.MethodFix, ask)
}

// Config returns the configuration the daemon runs with, and where each value came from.
func (c *Client) Config(ctx context.Context) (api.ConfigList, error) {
	return get[api.ConfigList](ctx, c, api.MethodConfig, nil)
}

// Metrics returns the daemon's metrics in the text format of Prometheus.
func (c *Client) Metrics(ctx context.Context) (string, error) {
	m, err := get[api.Metrics](ctx, c, api.MethodMetrics, nil)
	return m.Text, err
}

// WebLogin returns a link that logs a browser in to the daemon's web pages, once.
func (c *Client) WebLogin(ctx context.Context) (api.WebLogin, error) {
	return get[api.WebLogin](ctx, c, api.MethodWebLogin, nil)
}

// VMCreateBegin begins to create a VM, and to start it when p says so. The operation's result is an [api.Ref] with the VM's id.
func (c *Client) VMCreateBegin(ctx context.Context, p api.VMCreate) (api.OperationRef, error) {
	return get[api.OperationRef](ctx, c, api.MethodVMBegin, p)
}

// VMCreateStatus returns where the creation with this operation id stands.
func (c *Client) VMCreateStatus(ctx context.Context, id string) (api.Operation, error) {
	return get[api.Operation](ctx, c, api.MethodVMStatus, api.OperationRef{ID: id})
}

// VMCreateCancel cancels a creation and returns once it has been undone.
func (c *Client) VMCreateCancel(ctx context.Context, id string) error {
	return c.call(ctx, api.MethodVMCancel, api.OperationRef{ID: id}, nil)
}

// VMCreate creates a VM and waits for it. Cancelling ctx cancels the creation.
func (c *Client) VMCreate(ctx context.Context, p api.VMCreate) (api.VM, error) {
	return get[api.VM](ctx, c, api.MethodVMCreate, p)
}

// VMList returns all VMs, oldest first.
func (c *Client) VMList(ctx context.Context) ([]api.VM, error) {
	l, err := get[api.VMList](ctx, c, api.MethodVMList, nil)
	return l.VMs, err
}

// VMGet returns one VM.
func (c *Client) VMGet(ctx context.Context, ref string) (api.VM, error) {
	return get[api.VM](ctx, c, api.MethodVMGet, api.Ref{Ref: ref})
}

// VMStart starts a VM and waits until its agent answers.
func (c *Client) VMStart(ctx context.Context, ref string) (api.VM, error) {
	return get[api.VM](ctx, c, api.MethodVMStart, api.Ref{Ref: ref})
}

// VMStop has the guest power off, and kills it after the timeout in p.
func (c *Client) VMStop(ctx context.Context, p api.VMStop) (api.VM, error) {
	return get[api.VM](ctx, c, api.MethodVMStop, p)
}

// VMPause halts the processors of a VM that runs; its memory stays.
func (c *Client) VMPause(ctx context.Context, ref string) (api.VM, error) {
	return get[api.VM](ctx, c, api.MethodVMPause, api.Ref{Ref: ref})
}

// VMResume lets a paused VM go on.
func (c *Client) VMResume(ctx context.Context, ref string) (api.VM, error) {
	return get[api.VM](ctx, c, api.MethodVMResume, api.Ref{Ref: ref})
}

// VMRestart stops a VM that runs, and starts it.
func (c *Client) VMRestart(ctx context.Context, p api.VMRestart) (api.VM, error) {
	return get[api.VM](ctx, c, api.MethodVMRestart, p)
}

// VMSet changes what a VM is to be.
func (c *Client) VMSet(ctx context.Context, p api.VMSet) (api.VM, error) {
	return get[api.VM](ctx, c, api.MethodVMSet, p)
}

// VMKill ends a VM's machine at once, as pulling the plug does, or by the signal in p.
func (c *Client) VMKill(ctx context.Context, p api.VMKill) (api.VM, error) {
	return get[api.VM](ctx, c, api.MethodVMKill, p)
}

// VMDelete removes a VM with its disks. Without force one that runs or has unexported work is refused.
func (c *Client) VMDelete(ctx context.Context, p api.VMDelete) error {
	return c.call(ctx, api.MethodVMDelete, p, nil)
}

// VMSSH returns what an SSH client needs to reach a running VM.
func (c *Client) VMSSH(ctx context.Context, ref string) (api.VMSSH, error) {
	return get[api.VMSSH](ctx, c, api.MethodVMSSH, api.Ref{Ref: ref})
}

// VMHealth asks a running VM's agent how it is.
func (c *Client) VMHealth(ctx context.Context, ref string) (api.VMHealth, error) {
	return get[api.VMHealth](ctx, c, api.MethodVMHealth, api.Ref{Ref: ref})
}

// VMPing measures how long a running VM's agent takes to answer.
func (c *Client) VMPing(ctx context.Context, ref string) (api.VMPing, error) {
	return get[api.VMPing](ctx, c, api.MethodVMPing, api.Ref{Ref: ref})
}

// VMStats returns what the VMs use that refs name; without refs, all that run.
func (c *Client) VMStats(ctx context.Context, refs ...string) ([]api.VMStats, error) {
	l, err := get[api.VMStatsList](ctx, c, api.MethodVMStats, api.VMStatsRequest{Refs: refs})
	return l.VMs, err
}

// VMPrune deletes VMs that do not run and hold nothing unexported.
func (c *Client) VMPrune(ctx context.Context, p api.VMPrune) (api.VMPruned, error) {
	return get[api.VMPruned](ctx, c, api.MethodVMPrune, p)
}

// VMPorts lists what listens in a running VM.
func (c *Client) VMPorts(ctx context.Context, ref string) ([]api.VMPort, error) {
	l, err := get[api.VMPorts](ctx, c, api.MethodVMPorts, api.Ref{Ref: ref})
	return l.Ports, err
}

// VMStat tells what an absolute path in a running VM is, links followed. A path that is not there is no error.
func (c *Client) VMStat(ctx context.Context, ref, path string) (guestapi.Stat, error) {
	return get[guestapi.Stat](ctx, c, api.MethodVMStat, api.VMStat{Ref: api.Ref{Ref: ref}, Path: path})
}

// WorkStatus says what has changed in a VM's workspace.
func (c *Client) WorkStatus(ctx context.Context, ref string) (api.WorkStatus, error) {
	return get[api.WorkStatus](ctx, c, api.MethodWorkStatus, api.Ref{Ref: ref})
}

// WorkExported tells the daemon that the export of the state with this tree id is safely stored.
func (c *Client) WorkExported(ctx context.Context, ref, tree string) error {
	return c.call(ctx, api.MethodWorkExported, api.WorkExported{Ref: api.Ref{Ref: ref}, Tree: tree}, nil)
}

// ImageList returns all images.
func (c *Client) ImageList(ctx context.Context) ([]api.Image, error) {
	l, err := get[api.ImageList](ctx, c, api.MethodImageList, nil)
	return l.Images, err
}

// ImageGet returns one image.
func (c *Client) ImageGet(ctx context.Context, ref string) (api.Image, error) {
	return get[api.Image](ctx, c, api.MethodImageGet, api.Ref{Ref: ref})
}

// ImageDelete removes an image that no VM uses.
func (c *Client) ImageDelete(ctx context.Context, ref string) error {
	return c.call(ctx, api.MethodImageDelete, api.Ref{Ref: ref}, nil)
}

// ImageBuildBegin begins to build a Debian image. The operation's result is an [api.Ref] with the image's id.
func (c *Client) ImageBuildBegin(ctx context.Context, p api.ImageBuild) (api.OperationRef, error) {
	return get[api.OperationRef](ctx, c, api.MethodImageBuildBegin, p)
}

// ImageRecipeBegin begins to build an image by a recipe. The operation's result is an [api.Ref] with the image's id.
func (c *Client) ImageRecipeBegin(ctx context.Context, p api.ImageRecipe) (api.OperationRef, error) {
	return get[api.OperationRef](ctx, c, api.MethodImageRecipeBegin, p)
}

// ImagePullBegin begins to pull an OCI image. The operation's result is an [api.Ref] with the image's id.
func (c *Client) ImagePullBegin(ctx context.Context, p api.ImagePull) (api.OperationRef, error) {
	return get[api.OperationRef](ctx, c, api.MethodImagePullBegin, p)
}

// KernelList returns all kernels.
func (c *Client) KernelList(ctx context.Context) ([]api.Kernel, error) {
	l, err := get[api.KernelList](ctx, c, api.MethodKernelList, nil)
	return l.Kernels, err
}

// KernelGet returns one kernel.
func (c *Client) KernelGet(ctx context.Context, ref string) (api.Kernel, error) {
	return get[api.Kernel](ctx, c, api.MethodKernelGet, api.Ref{Ref: ref})
}

// KernelImportBegin begins to import a kernel. The operation's result is an [api.Ref] with the kernel's id.
func (c *Client) KernelImportBegin(ctx context.Context, p api.KernelImport) (api.OperationRef, error) {
	return get[api.OperationRef](ctx, c, api.MethodKernelImportBegin, p)
}

// KernelDelete removes a kernel that neither an image nor a VM uses.
func (c *Client) KernelDelete(ctx context.Context, ref string) error {
	return c.call(ctx, api.MethodKernelDelete, api.Ref{Ref: ref}, nil)
}

// TemplateList returns the templates, those that were used last at the end.
func (c *Client) TemplateList(ctx context.Context) ([]api.Template, error) {
	l, err := get[api.TemplateList](ctx, c, api.MethodTemplateList, nil)
	return l.Templates, err
}

// TemplateBuildBegin begins to make a template, unless there is one. The operation's result is an [api.Ref] with its id.
func (c *Client) TemplateBuildBegin(ctx context.Context, p api.TemplateBuild) (api.OperationRef, error) {
	return get[api.OperationRef](ctx, c, api.MethodTemplateBuild, p)
}

// TemplateDelete removes a template. VMs that began with it go on.
func (c *Client) TemplateDelete(ctx context.Context, id string) error {
	return c.call(ctx, api.MethodTemplateDelete, api.Ref{Ref: id}, nil)
}

// TemplatePrune removes templates that are of no use any more, or all, and returns what went.
func (c *Client) TemplatePrune(ctx context.Context, p api.TemplatePrune) ([]api.Template, error) {
	l, err := get[api.TemplateList](ctx, c, api.MethodTemplatePrune, p)
	return l.Templates, err
}

// OperationList returns the operations the daemon remembers, newest first.
func (c *Client) OperationList(ctx context.Context) ([]api.Operation, error) {
	l, err := get[api.OperationList](ctx, c, api.MethodOperationList, nil)
	return l.Operations, err
}

// OperationGet returns one operation by its id or a unique prefix of it.
func (c *Client) OperationGet(ctx context.Context, id string) (api.Operation, error) {
	return get[api.Operation](ctx, c, api.MethodOperationGet, api.OperationRef{ID: id})
}

// OperationCancel cancels an operation and returns once it has ended.
func (c *Client) OperationCancel(ctx context.Context, id string) error {
	return c.call(ctx, api.MethodOperationCancel, api.OperationRef{ID: id}, nil)
}
