// Package storetest gives other packages' tests a real store that ends with the test.
package storetest

import (
	"path/filepath"
	"testing"

	"github.com/banger-vm/banger/internal/store"
)

// New returns an empty store in a directory of the test's own.
func New(t testing.TB) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "banger.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close store: %v", err)
		}
	})
	return s
}
