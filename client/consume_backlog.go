package client

import "sync"

// backlog holds the deliveries that no handler has begun: a line for each queue, and the lines take turns. It never blocks
// who adds: credit bounds it.
type backlog struct {
	mu     sync.Mutex // guards all below, and the lines
	some   *sync.Cond
	turns  []*lineUp // those that are not empty, in the order of their turns
	closed bool
}

// lineUp is what waits of one queue.
type lineUp struct {
	b     *backlog
	items []*held
}

func newBacklog() *backlog {
	b := new(backlog)
	b.some = sync.NewCond(&b.mu)
	return b
}

// lineUp returns a new, empty line.
func (b *backlog) lineUp() *lineUp { return &lineUp{b: b} }

// start starts workers, which outlive the streams. The function that it returns lets them finish what is there and waits
// for them.
func (b *backlog) start(workers int, h Handler) (finish func()) {
	var all sync.WaitGroup
	for range workers {
		all.Go(func() { b.handle(h) })
	}
	return func() {
		b.close()
		all.Wait()
	}
}

// handle is one worker.
func (b *backlog) handle(h Handler) {
	for {
		d := b.take()
		if d == nil {
			return
		}
		if !d.stream.begin(d) {
			continue
		}
		err := h(d.stream.handlers, &d.Delivery)
		d.stream.finish(d, err)
	}
}

func (l *lineUp) add(items []*held) {
	if len(items) == 0 {
		return
	}
	b := l.b
	b.mu.Lock()
	if len(l.items) == 0 {
		b.turns = append(b.turns, l)
	}
	l.items = append(l.items, items...)
	b.mu.Unlock()
	if len(items) == 1 {
		b.some.Signal()
	} else {
		b.some.Broadcast()
	}
}

// take waits for the next, of the line whose turn it is; nil: there will be none.
func (b *backlog) take() *held {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.turns) == 0 {
		if b.closed {
			return nil
		}
		b.some.Wait()
	}
	l := b.turns[0]
	d := l.items[0]
	l.items[0] = nil
	l.items = l.items[1:]
	if len(b.turns) > 1 || len(l.items) == 0 {
		b.turns[0] = nil
		b.turns = b.turns[1:]
		if len(l.items) > 0 {
			b.turns = append(b.turns, l)
		}
	}
	return d
}

// takeAll empties the line.
func (l *lineUp) takeAll() []*held {
	b := l.b
	b.mu.Lock()
	defer b.mu.Unlock()
	items := l.items
	l.items = nil
	for i, turn := range b.turns {
		if turn == l {
			b.turns = append(b.turns[:i:i], b.turns[i+1:]...)
			break
		}
	}
	return items
}

// close lets the workers end once the backlog is empty.
func (b *backlog) close() {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.some.Broadcast()
}
