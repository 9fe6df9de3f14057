// Package ext4 breaks a rule.
package ext4
