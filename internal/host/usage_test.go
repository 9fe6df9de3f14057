package host

import (
	"os"
	"testing"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

func TestProcessUsage(t *testing.T) {
	before, err := ProcessUsage(os.Getpid())
	if err != nil || before.Resident < 1<<20 {
		t.Fatalf("%+v %v", before, err)
	}
	var after Usage
	for begun := time.Now(); after.CPU <= before.CPU && time.Since(begun) < time.Minute; { // work is what is measured
		if after, err = ProcessUsage(os.Getpid()); err != nil {
			t.Fatal(err)
		}
	}
	if after.CPU <= before.CPU {
		t.Errorf("processor time stays %v", after.CPU)
	}
	if _, err := ProcessUsage(1 << 30); !errkind.Is(err, api.KindNotFound) {
		t.Errorf("no process: %v", err)
	}
}
