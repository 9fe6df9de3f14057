package hostnet

import (
	"testing"

	"github.com/banger-vm/banger/internal/hostnet/hostnettest"
)

func TestMain(m *testing.M) { hostnettest.Main(m) }
