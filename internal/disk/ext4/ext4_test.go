package ext4

import (
	"os"
	"testing"
	"time"
)

func TestScratch(t *testing.T) {
	f, err := os.Open("/tmp/img/debian.tar")
	if err != nil {
		t.Skip(err)
	}
	os.Remove("/tmp/img/own.ext4")
	t0 := time.Now()
	if err := FromTar(t.Context(), f, "/tmp/img/own.ext4", Options{Size: 8 << 30, Label: "rootfs"}); err != nil {
		t.Fatal(err)
	}
	t.Log(time.Since(t0))
	if err := Check(t.Context(), "/tmp/img/own.ext4"); err != nil {
		t.Fatal(err)
	}
	t.Log(ReadInfo("/tmp/img/own.ext4"))
}
