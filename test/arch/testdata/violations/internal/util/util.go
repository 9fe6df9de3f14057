// Package util breaks a rule.
package util
