// Package qemu breaks a rule.
package qemu
