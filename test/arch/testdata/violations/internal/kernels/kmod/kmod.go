// Package kmod breaks a rule.
package kmod
