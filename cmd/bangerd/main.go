// Command bangerd is banger's daemon. It is started by the CLI when it is needed, or by a service manager; docs/ONDISK.md
// lists its files. Its environment: BANGER_ROOT and the configuration's variables, and BANGER_FAILPOINTS in tests.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/banger-vm/banger/internal/daemon"
	"github.com/banger-vm/banger/internal/errkind"
)

// version is set by the linker.
var version = "devel"

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	if err := daemon.Main(ctx, version); err != nil {
		fmt.Fprintln(os.Stderr, "bangerd:", err)
		if hint := errkind.Hint(err); hint != "" {
			fmt.Fprintln(os.Stderr, "hint:", hint)
		}
		os.Exit(errkind.ExitCode(err))
	}
}
