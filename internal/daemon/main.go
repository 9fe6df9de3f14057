package daemon

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/banger-vm/banger/internal/config"
	"github.com/banger-vm/banger/internal/failpoint"
)

// Main runs a daemon with the configuration of this process's environment until ctx ends or a client stops it.
func Main(ctx context.Context, version string) error {
	paths, err := config.FindPaths(os.LookupEnv)
	if err != nil {
		return err
	}
	cfg, err := config.Load(paths.ConfigFile(), os.LookupEnv, nil)
	if err != nil {
		return err
	}
	points, err := failpoint.Parse(os.Getenv("BANGER_FAILPOINTS"))
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := paths.Make(); err != nil {
		return err
	}
	logFile, err := openLog(paths.DaemonLog())
	if err != nil {
		return err
	}
	defer logFile.Close()
	var level slog.Level
	if err := level.UnmarshalText([]byte(cfg.LogLevel)); err != nil {
		return err
	}
	d, err := Open(ctx, Options{
		Paths: paths, Config: cfg, Version: version, Failpoints: points,
		Agent: filepath.Join(filepath.Dir(self), "banger-agent"),
		Log:   slog.New(slog.NewTextHandler(logFile, &slog.HandlerOptions{Level: level})),
	})
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Run(ctx)
}

// maxLog is the size in bytes at which the log of earlier daemons is put aside, replacing the one put aside before.
const maxLog = 16 << 20

func openLog(path string) (*os.File, error) {
	if st, err := os.Stat(path); err == nil && st.Size() > maxLog {
		if err := os.Rename(path, path+".1"); err != nil {
			return nil, err
		}
	}
	return os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
}
