//go:build race

package lockorder

const checked = true
