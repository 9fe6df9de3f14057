package app

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/banger-vm/banger/api"
)

// Progress shows the stages of a piece of work on standard error. On a terminal the present stage is one line that is
// rewritten, with its time and amount; elsewhere each stage is a line when it has ended.
type Progress struct {
	w     io.Writer
	tty   bool
	quiet bool
	stop  func() // ends the redrawing

	mu     sync.Mutex // the ticker redraws while stages change
	stage  string
	begun  time.Time
	amount string
	shown  int // stages of the watched operation that have been printed
}

// Progress returns a Progress; a quiet one shows nothing. The caller must End it.
func (a *App) Progress(quiet bool) *Progress {
	p := &Progress{w: a.Err, tty: a.ErrTTY && a.Env("TERM") != "dumb", quiet: quiet, stop: func() {}}
	if p.tty && !quiet {
		done := make(chan struct{})
		p.stop = sync.OnceFunc(func() { close(done) })
		go p.redraw(done)
	}
	return p
}

// redraw keeps the time of the present stage going.
func (p *Progress) redraw(done <-chan struct{}) {
	const every = 100 * time.Millisecond
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			p.mu.Lock()
			p.drawLocked()
			p.mu.Unlock()
		case <-done:
			return
		}
	}
}

// Say prints a line of its own.
func (p *Progress) Say(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.quiet {
		p.clearLocked()
		fmt.Fprintf(p.w, format+"\n", args...)
	}
}

// Stage begins the named stage and ends the one before it.
func (p *Progress) Stage(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.endLocked()
	p.stage, p.begun, p.amount = name, time.Now(), ""
	p.drawLocked()
}

// Progress says how much of the present stage is done. total 0 is unknown.
func (p *Progress) Progress(done, total int64, unit string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.amount = amount(api.Progress{Done: done, Total: total, Unit: unit})
}

// Update shows the state of an operation that is watched. All updates of a Progress are of one operation, or of several
// one after the other.
func (p *Progress) Update(op api.Operation) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(op.Stages) < p.shown {
		p.shown = 0 // another operation
	}
	for _, s := range op.Stages[p.shown:] {
		if s.TookMS < 0 {
			p.stage, p.begun, p.amount = s.Name, s.Begun, ""
			if op.Progress != nil {
				p.amount = amount(*op.Progress)
			}
			break
		}
		p.shown++
		p.stage = ""
		p.lineLocked(s.Name, time.Duration(s.TookMS)*time.Millisecond)
	}
	if op.State.Done() {
		p.stage, p.shown = "", 0
	}
	p.drawLocked()
}

// End ends the present stage and the display; it may be called again.
func (p *Progress) End() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.endLocked()
	p.stop()
}

// Drop forgets the present stage without a line, because it failed.
func (p *Progress) Drop() {
	p.mu.Lock()
	p.stage = ""
	p.clearLocked()
	p.mu.Unlock()
}

func (p *Progress) endLocked() {
	if p.stage != "" {
		p.lineLocked(p.stage, time.Since(p.begun))
		p.stage = ""
	}
}

func (p *Progress) lineLocked(name string, took time.Duration) {
	if !p.quiet {
		p.clearLocked()
		fmt.Fprintf(p.w, "  %-32s %7.2fs\n", name, took.Seconds())
	}
}

func (p *Progress) clearLocked() {
	if p.tty && !p.quiet {
		io.WriteString(p.w, "\r\x1b[K")
	}
}

func (p *Progress) drawLocked() {
	if p.tty && !p.quiet && p.stage != "" {
		line := fmt.Sprintf("  %-32s %7.2fs  %s", p.stage, time.Since(p.begun).Seconds(), p.amount)
		io.WriteString(p.w, "\r\x1b[K"+strings.TrimRight(line, " "))
	}
}

// amount writes how far a stage is.
func amount(pr api.Progress) string {
	n := func(v int64) string { return fmt.Sprint(v) }
	unit := " " + pr.Unit
	if pr.Unit == "bytes" {
		n, unit = Size, ""
	}
	switch {
	case pr.Total > 0:
		return fmt.Sprintf("%d%% of %s%s", pr.Done*100/pr.Total, n(pr.Total), unit)
	case pr.Done > 0:
		return n(pr.Done) + unit
	}
	return ""
}
