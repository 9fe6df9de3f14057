// Package capability breaks a rule.
package capability
