// Package banger breaks a rule.
package banger

// Default can be changed by anybody.
var Default = 1

// ErrGone is a sentinel.
var ErrGone error

func init() {}

func many(a, b, c, d int, e, f, g string) {}

type wide interface {
	M0()
	M1()
	M2()
	M3()
	M4()
	M5()
	M6()
	M7()
	M8()
	M9()
	M10()
}
