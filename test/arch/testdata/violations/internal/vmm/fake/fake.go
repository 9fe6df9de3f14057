// Package fake breaks no rule: it is for tests.
package fake

import _ "os/exec"
