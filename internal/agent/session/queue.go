package session

import (
	"bytes"
	"context"
	"io"
	"sync"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

// window is how many bytes of input may be queued before who sends must wait.
const window = 256 << 10

// queue is the input that a session's command has not taken yet. Those who fill it do not wait for the command.
type queue struct {
	mu      sync.Mutex // clients add while the command takes
	chunks  []chunk
	size    int           // bytes in chunks
	eof     bool          // nothing more is added
	closed  bool          // nobody takes input any more
	changed chan struct{} // closed at the next change
}

// chunk is input from one sender.
type chunk struct {
	data  []byte
	taken func(n int) // tells the sender; may be nil
	end   bool        // instead of data: the input ends here
}

func newQueue() *queue { return &queue{changed: make(chan struct{})} }

func (q *queue) wakeLocked() {
	close(q.changed)
	q.changed = make(chan struct{})
}

// add queues a copy of p at once. Its kind is precondition when the input has ended.
func (q *queue) add(p []byte, taken func(int)) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.addLocked(p, taken)
}

func (q *queue) addLocked(p []byte, taken func(int)) error {
	switch {
	case q.closed:
		return errkind.New(api.KindPrecondition, "the session takes no input any more")
	case q.eof:
		return errkind.New(api.KindPrecondition, "the session's input has ended")
	case len(p) > 0:
		q.chunks = append(q.chunks, chunk{data: bytes.Clone(p), taken: taken})
		q.size += len(p)
		q.wakeLocked()
	}
	return nil
}

// addWhenRoom is add once less than a window is queued.
func (q *queue) addWhenRoom(ctx context.Context, p []byte) error {
	for {
		q.mu.Lock()
		if q.size < window || q.closed || q.eof {
			err := q.addLocked(p, nil)
			q.mu.Unlock()
			return err
		}
		changed := q.changed
		q.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return errkind.WithHint(errkind.Wrap(api.KindBusy, ctx.Err()), "the session does not read its input")
		}
	}
}

// room is how much a client may send at once.
func (q *queue) room() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return max(window-q.size, 1)
}

// end closes the input after what is queued. On a terminal that is only a character to type: more may come.
func (q *queue) end(terminal bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.eof || q.closed {
		return
	}
	q.eof = !terminal
	q.chunks = append(q.chunks, chunk{end: true})
	q.wakeLocked()
}

// close drops what is queued.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.chunks, q.size, q.closed = nil, 0, true
	q.wakeLocked()
}

// next waits for input. It is nil when nothing is taken any more.
func (q *queue) next() *chunk {
	for {
		q.mu.Lock()
		if q.closed {
			q.mu.Unlock()
			return nil
		}
		if len(q.chunks) > 0 {
			c := q.chunks[0]
			q.chunks = q.chunks[1:]
			q.mu.Unlock()
			return &c
		}
		changed := q.changed
		q.mu.Unlock()
		<-changed
	}
}

// took notes that n bytes of c are the command's.
func (q *queue) took(c *chunk, n int) {
	q.mu.Lock()
	q.size = max(q.size-n, 0)
	q.wakeLocked()
	q.mu.Unlock()
	if c.taken != nil {
		c.taken(n)
	}
}

// run moves the queue into input until it is closed, or the command takes no more; the rest is dropped.
func (q *queue) run(input io.WriteCloser) {
	defer q.close()
	for c := q.next(); c != nil; c = q.next() {
		if c.end {
			_ = input.Close() // the command may have ended by itself
			continue
		}
		n, err := input.Write(c.data)
		q.took(c, n)
		if err != nil {
			return
		}
	}
}
