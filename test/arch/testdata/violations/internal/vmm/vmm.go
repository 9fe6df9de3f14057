// Package vmm breaks a rule.
package vmm
