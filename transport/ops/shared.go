package ops

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"go.uber.org/zap"
)

// shared is work of which one is done at a time: who asks meanwhile gets the same result.
type shared[T any] struct {
	mu   sync.Mutex
	work *work[T] // under way
}

type work[T any] struct {
	done  chan struct{}
	value T
	err   error
}

// do returns what f does, or has begun to do. Waiting ends with ctx, with the time limit, and with the server. f goes
// on until it returns, so that something that is stuck is not begun again and again.
func (sh *shared[T]) do(ctx context.Context, s *Server, limit time.Duration, what string, f func(context.Context) (T, error)) (value T, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("%s takes longer than %v", what, limit))
	defer cancel()
	sh.mu.Lock()
	w := sh.work
	if w == nil {
		w = &work[T]{done: make(chan struct{})}
		if !s.start(func() { sh.perform(s, w, limit, what, f) }) {
			sh.mu.Unlock()
			return value, fmt.Errorf("%s: the daemon is stopping", what)
		}
		sh.work = w
	}
	sh.mu.Unlock()
	select {
	case <-w.done:
		return w.value, w.err
	case <-ctx.Done():
		return value, context.Cause(ctx)
	}
}

func (sh *shared[T]) perform(s *Server, w *work[T], limit time.Duration, what string, f func(context.Context) (T, error)) {
	defer func() {
		if p := recover(); p != nil { // nobody's question takes down the daemon
			s.log.Error("panic in an operator's request", zap.String("doing", what), zap.Any("panic", p), zap.ByteString("stack", debug.Stack()))
			w.err = fmt.Errorf("%s: an internal error; the daemon's log tells more", what)
		}
		sh.mu.Lock()
		sh.work = nil
		sh.mu.Unlock()
		close(w.done)
	}()
	ctx, cancel := context.WithTimeout(s.closing, limit)
	defer cancel()
	w.value, w.err = f(ctx)
}

// start runs f, unless the server has stopped.
func (s *Server) start(f func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return false
	}
	s.routines.Go(f)
	return true
}
