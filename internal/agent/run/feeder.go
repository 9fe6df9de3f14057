package run

import (
	"io"
	"sync"
)

// window is how many bytes of its input a client may have under way that the command has not taken.
const window = 256 << 10

// feeder holds what came for a command's input until the command takes it, so that whoever reads the client's frames does
// not wait for the command: a signal gets past input that nobody reads, and so does the client's end.
type feeder struct {
	input io.WriteCloser // of the command
	taken func(n int)    // tells the client how many bytes went into input since the last call

	mu      sync.Mutex // the reader of frames adds while the command takes
	changed *sync.Cond
	pending []byte
	eof     bool // nothing comes after pending
	stopped bool // nothing goes into input any more
}

// feed starts a feeder; stop must be called.
func feed(input io.WriteCloser, taken func(n int)) *feeder {
	f := &feeder{input: input, taken: taken}
	f.changed = sync.NewCond(&f.mu)
	go f.run()
	return f
}

// add queues a copy of p. It waits only for a client that sends more than its window.
func (f *feeder) add(p []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.pending)+len(p) > window && len(f.pending) > 0 && !f.stopped {
		f.changed.Wait()
	}
	if !f.stopped && !f.eof {
		f.pending = append(f.pending, p...)
		f.changed.Broadcast()
	}
}

// end closes the input after what is queued.
func (f *feeder) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.eof = true
	f.changed.Broadcast()
}

// stop drops what is queued.
func (f *feeder) stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stopped, f.pending = true, nil
	f.changed.Broadcast()
}

// run moves the queue into the input. It stops when the command has closed its end or has ended; the client is told of no
// more room then, and does not send what nobody wants.
func (f *feeder) run() {
	defer f.stop()
	owed, spare := 0, []byte(nil)
	for {
		p, ok := f.next(spare)
		if !ok {
			return
		}
		for rest := p; len(rest) > 0; {
			n, err := f.input.Write(rest[:min(len(rest), window/8)])
			if err != nil {
				return
			}
			rest = rest[n:]
			if owed += n; owed >= window/4 { // not for each key that is typed
				f.taken(owed)
				owed = 0
			}
		}
		spare = p[:0]
	}
}

// next waits for input and exchanges the queue for spare. At the end it closes the input and reports false.
func (f *feeder) next(spare []byte) ([]byte, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.pending) == 0 && !f.eof && !f.stopped {
		f.changed.Wait()
	}
	if f.stopped {
		return nil, false
	}
	p := f.pending
	f.pending = spare
	f.changed.Broadcast()
	if len(p) == 0 {
		_ = f.input.Close() // the command may have ended by itself
		return nil, false
	}
	return p, true
}
