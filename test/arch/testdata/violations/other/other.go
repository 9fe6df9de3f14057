// Package other is another module.
package other
