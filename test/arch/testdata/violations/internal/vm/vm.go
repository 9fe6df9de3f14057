// Package vm breaks a rule.
package vm

import (
	_ "github.com/banger-vm/banger/internal/imagemgr"
	_ "github.com/banger-vm/banger/internal/kernels/kmod"
	_ "github.com/banger-vm/banger/internal/rpcserver"
	_ "github.com/banger-vm/banger/internal/vmm/qemu"
)
