package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"

	"github.com/ipcd/ipcd/internal/units"
)

// progress shows on a terminal how far long work has come; elsewhere it shows nothing.
type progress struct {
	w     io.Writer // nil: no terminal
	task  string
	next  time.Time // when to show again
	shown bool
}

const progressEvery = 200 * time.Millisecond

// newProgress shows on w if that is a terminal.
func newProgress(w io.Writer, task string) *progress {
	p := &progress{task: task, next: time.Now().Add(progressEvery)}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		p.w = w
	}
	return p
}

// show tells how many bytes are done, of total if that is known (> 0).
func (p *progress) show(done, total int64) {
	if p.w == nil || time.Now().Before(p.next) {
		return
	}
	p.next, p.shown = time.Now().Add(progressEvery), true
	fmt.Fprintf(p.w, "\r%s: %s\x1b[K", p.task, progressText(done, total))
}

func progressText(done, total int64) string {
	if total <= 0 {
		return units.FormatSize(done)
	}
	return fmt.Sprintf("%s of %s, %d %%", units.FormatSize(done), units.FormatSize(total), 100*min(done, total)/total)
}

// clear takes the line away, so that what follows stands in its place.
func (p *progress) clear() {
	if p.shown {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.shown = false
	}
}
