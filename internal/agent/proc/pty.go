package proc

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/api/frame"
)

// openTerminal returns a new pseudo-terminal: the end of the process and ours, see pts(4). It is not made with a library
// because the usual one leaves our end in blocking mode: closing it would then wait for a read to return instead of
// hanging up. TIOCGPTPEER needs no path of a devpts.
func openTerminal(size frame.WindowSize, owner *User) (theirs, ours *os.File, err error) {
	master, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, &os.PathError{Op: "open", Path: "/dev/ptmx", Err: err}
	}
	ours = os.NewFile(uintptr(master), "/dev/ptmx")
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		ours.Close()
		return nil, nil, os.NewSyscallError("unlock terminal", err)
	}
	slave, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(master), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		ours.Close()
		return nil, nil, os.NewSyscallError("open terminal", errno)
	}
	if size != (frame.WindowSize{}) {
		_ = setSize(master, size) // a wrong size is better than no terminal
	}
	if owner != nil && int(owner.UID) != os.Getuid() {
		_ = unix.Fchown(int(slave), int(owner.UID), -1) // so that the user may open it by name; fails as an ordinary user
	}
	return os.NewFile(slave, "terminal"), ours, nil
}

func setSize(fd int, size frame.WindowSize) error {
	return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: size.Rows, Col: size.Cols})
}

// Resize sets the size of the process's terminal; the kernel tells its foreground group with SIGWINCH. Without a terminal
// it does nothing.
func (p *Process) Resize(size frame.WindowSize) error {
	if !p.stdio.tty {
		return nil
	}
	return p.stdio.control(func(fd int) error { return setSize(fd, size) })
}

// input is what [Process.Input] returns.
type input struct{ s *stdio }

func (in input) Write(p []byte) (int, error) { return in.s.stdin.Write(p) }

// Close ends the input: of a pipe by closing it, on a terminal by the end-of-file character where the terminal reads
// lines, as if the user had typed it. A program that reads single characters is left alone.
func (in input) Close() error {
	if !in.s.tty {
		return in.s.stdin.Close()
	}
	var eof []byte
	err := in.s.control(func(fd int) error {
		t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		if err == nil && t.Lflag&unix.ICANON != 0 {
			eof = []byte{t.Cc[unix.VEOF]}
		}
		return err
	})
	if err == nil && eof != nil {
		_, err = in.s.stdin.Write(eof)
	}
	return err
}

// control runs fn on the descriptor of our end of stdin.
func (s *stdio) control(fn func(fd int) error) error {
	conn, err := s.stdin.SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	if err := conn.Control(func(fd uintptr) { ferr = fn(int(fd)) }); err != nil {
		return err
	}
	return ferr
}
