// Package errkind breaks a rule.
package errkind
