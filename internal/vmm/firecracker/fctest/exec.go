package fctest

import "syscall"

// become replaces this process by the program at path. Like the jailer, it takes nothing of the environment along.
func become(path string, args []string, env ...string) error {
	return syscall.Exec(path, append([]string{path}, args...), env)
}
