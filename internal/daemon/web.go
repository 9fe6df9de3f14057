package daemon

import (
	"context"
	"errors"
	"net/url"
	"sync"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/client"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/web"
)

// webUI is the web UI, and where it is served. The fields after ui are set before the first call is served.
type webUI struct {
	ui      *web.UI
	address string // empty: not served
	why     error  // of kind unavailable: not served, though it should be
}

// connect is a client of this daemon.
func (d *Daemon) connect(ctx context.Context) (*client.Client, error) {
	return client.Dial(ctx, d.opts.Paths.Socket(), client.Options{})
}

// serveWeb serves metrics and the web UI where the configuration wants them, until the daemon stops. The function that it returns
// waits for the end. That the UI's port is taken keeps no VM from running: web.login tells of it.
func (d *Daemon) serveWeb() (wait func(), err error) {
	var serving sync.WaitGroup
	serve := func(what string, s *web.Server) {
		d.log.Info("serving "+what, "address", s.Addr())
		serving.Go(func() {
			if err := s.Run(d.stopped); err != nil {
				d.log.Error(what+" no longer served", "err", err)
			}
		})
	}
	c := d.opts.Config
	address := c.WebAddress(d.opts.Paths)
	var ui *web.Server
	if address != "" {
		ui, err = web.ListenUI(address, d.web.ui, d.log)
		if errkind.Is(err, api.KindUnavailable) {
			d.log.Warn("web UI not served", "address", address, "err", err)
			d.web.why, err = err, nil
		}
		if err != nil {
			return nil, err
		}
	}
	if c.MetricsListen != "" {
		s, err := web.Listen(c.MetricsListen, c.MetricsPublic, web.Handler(d.metrics), d.log)
		if err != nil {
			return nil, errors.Join(err, ui.Close())
		}
		serve("metrics", s)
	}
	if ui != nil {
		d.web.address = ui.Addr().String()
		serve("web UI", ui)
	}
	return serving.Wait, nil
}

// WebLogin implements rpcserver.Daemon.
func (d *Daemon) WebLogin() (api.WebLogin, error) {
	switch {
	case d.web.why != nil:
		return api.WebLogin{}, d.web.why
	case d.web.address == "":
		return api.WebLogin{}, errkind.WithHint(errkind.New(api.KindPrecondition, "the web UI is off"),
			"set web_listen = \"127.0.0.1:7777\" in %s, and start the daemon again", d.opts.Paths.ConfigFile())
	}
	query := url.Values{"ticket": {d.web.ui.Ticket()}}
	return api.WebLogin{URL: "http://" + d.web.address + "/login?" + query.Encode()}, nil
}
