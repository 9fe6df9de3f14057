// Command main breaks a rule.
package main

import (
	_ "github.com/banger-vm/banger/internal/store"
)

func main() {}
