package main

import (
	"context"
	"iter"
	"sync"
)

// streamsMax bounds how many queues are followed at once: each is a stream of its own.
const streamsMax = 1024

// merged yields what comes from several sources, as it comes. The first error of one of them ends all. The end of one source is
// not that of the others.
func merged[T any](ctx context.Context, names []string, source func(ctx context.Context, name string) iter.Seq2[T, error]) iter.Seq2[T, error] {
	if len(names) == 1 {
		return source(ctx, names[0])
	}
	type item struct {
		v   T
		err error
	}
	return func(yield func(T, error) bool) {
		ctx, stop := context.WithCancel(ctx)
		var sources sync.WaitGroup
		items := make(chan item)
		for _, name := range names {
			sources.Go(func() {
				for v, err := range source(ctx, name) {
					select {
					case items <- item{v, err}:
					case <-ctx.Done():
						return
					}
				}
			})
		}
		over := make(chan struct{})
		go func() {
			sources.Wait()
			close(over)
		}()
		defer func() { stop(); <-over }()
		for {
			select {
			case i := <-items:
				if !yield(i.v, i.err) || i.err != nil {
					return
				}
			case <-over:
				return
			}
		}
	}
}
