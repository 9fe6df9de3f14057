package daemon

import (
	"context"
	"os"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/host"
)

// Ping implements rpcserver.Daemon.
func (d *Daemon) Ping() api.Ping {
	return api.Ping{Protocol: api.ProtocolVersion, Version: d.opts.Version, PID: os.Getpid()}
}

// Info implements rpcserver.Daemon.
func (d *Daemon) Info(ctx context.Context) (api.Info, error) {
	p := d.opts.Paths
	info := api.Info{
		Ping: d.Ping(), StartedAt: d.started.Format(time.RFC3339), Root: p.Root,
		StateDir: p.State, RunDir: p.Run, CacheDir: p.Cache, Config: p.ConfigFile(), Log: p.DaemonLog(),
		VMM: d.engine.auto.Features().Engine, VMMReason: d.engine.why + "; " + d.engine.auto.Features().AccelWhy,
		Cloner: d.cloner.Name, Network: d.net.choice.Mode, NetworkReason: d.net.choice.Why,
	}
	room, err := host.RoomOf(p.State)
	if err != nil {
		return info, err
	}
	info.CPUs, info.MemTotal, info.MemAvailable, info.DiskTotal, info.DiskFree = room.CPUs, room.MemTotal, room.MemAvailable, room.DiskTotal, room.DiskFree
	vms, err := d.vms.List(ctx)
	for _, v := range vms {
		info.VMs++
		if v.State.Live() {
			info.Running++
		}
	}
	return info, err
}

// Config implements rpcserver.Daemon.
func (d *Daemon) Config() api.ConfigList { return api.ConfigList{Values: d.opts.Config.Values()} }

// Metrics implements rpcserver.Daemon.
func (d *Daemon) Metrics() (string, error) { return d.metrics.Text() }

// Stop implements rpcserver.Daemon.
func (d *Daemon) Stop() { d.stop() }

// SSHIdentity implements rpcserver.Daemon.
func (d *Daemon) SSHIdentity() string { return d.keys.private }
