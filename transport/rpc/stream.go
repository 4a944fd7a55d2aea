package rpc

import (
	"context"
	"errors"
	"io"

	"github.com/ipcd/ipcd/internal/reason"
)

// frame is what arrived on a stream: a request, or why there are no more. io.EOF: the client is done.
type frame[T any] struct {
	request *T
	err     error
}

// receiver is the reading side of a stream.
type receiver[T any] interface {
	Recv() (*T, error)
	Context() context.Context
}

// receive reads a stream's requests in a goroutine of its own, so that the handler can wait for other
// things too. All that arrived before the stream's end is passed on, and then the end itself, unless
// done is closed before: the handler closes it when it returns, which also ends Recv.
func receive[T any](s *Server, method string, stream receiver[T], done <-chan struct{}) <-chan frame[T] {
	frames := make(chan frame[T])
	s.readers.Go(func() {
		for {
			var f frame[T]
			f.err = s.guard(method, func() (err error) {
				f.request, err = stream.Recv()
				return err
			})
			if f.err != nil && !errors.Is(f.err, io.EOF) {
				f.err = recvError(stream.Context(), f.err)
			}
			select {
			case frames <- f:
			case <-done:
				return
			}
			if f.err != nil {
				return
			}
		}
	})
	return frames
}

// first returns a stream's first frame.
func first[T any](s *Server, frames <-chan frame[T]) (*T, error) {
	select {
	case f := <-frames:
		if errors.Is(f.err, io.EOF) {
			return nil, reason.New(reason.InvalidArgument, "the stream ended before it began: its first frame must be `open`")
		}
		return f.request, f.err
	case <-s.closing.Done():
		return nil, shuttingDown()
	}
}

func shuttingDown() error {
	return reason.New(reason.ShuttingDown, "the daemon is stopping; connect again once it is back")
}
