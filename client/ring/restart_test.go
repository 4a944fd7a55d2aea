//go:build linux

package ring

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/ipcd/ipcd/internal/attach"
	"github.com/ipcd/ipcd/internal/reason"
)

func TestDataGoesOnWhileTheDaemonIsAway(t *testing.T) {
	f := newFake(t, func(f *fake) { f.lossless = true })
	c := f.consumer(t, ConsumerOptions{Lossless: true})
	p := f.producer(t) // later, so that each knows the other once something was read
	publish(t, p, 0, 100)
	expect(t, c, 0, 50)
	f.stop()
	for n := 100; n < 5000; n++ { // several laps, each in step with the consumer
		publish(t, p, n, n+1)
		expect(t, c, n-50, n-49)
	}
	if _, err := NewProducer(deadline(t), "/ring", ProducerOptions{Attach: f.path}); !errors.Is(err, ErrUnreachable) {
		t.Errorf("joining: %v", err)
	}
	f.start()
	f.await("both to come back", func() bool { return f.count() == 2 })
	publish(t, p, 5000, 5100)
	expect(t, c, 4950, 5100)
	if p.Sequence() != 5100 {
		t.Errorf("sequence %d", p.Sequence())
	}
}

// TestNothingIsLostThroughRestarts has lossless consumers read from several producers while the daemon is
// restarted again and again.
func TestNothingIsLostThroughRestarts(t *testing.T) {
	f := newFake(t, func(f *fake) { f.lossless = true })
	const lanes, readers, restarts = 2, 2, 5
	var producers []*Producer
	var consumers []*Consumer
	for range readers {
		consumers = append(consumers, f.consumer(t, ConsumerOptions{Lossless: true}))
	}
	for range lanes { // later, so that consumers are protected from the first message on
		producers = append(producers, f.producer(t))
	}
	ctx, cancel := context.WithCancel(deadline(t))
	defer cancel()
	stop := make(chan struct{})
	counts := make(chan map[uint64]int, lanes)
	var publishing, reading sync.WaitGroup
	for _, p := range producers {
		publishing.Go(func() {
			n := 0
			for ; ; n++ {
				select {
				case <-stop:
					counts <- map[uint64]int{p.Lane(): n}
					return
				default:
				}
				if err := p.PublishContext(ctx, 1, number(n)); err != nil {
					t.Errorf("message %d of lane %d: %v", n, p.Lane(), err)
					counts <- nil
					return
				}
			}
		})
	}
	read := make([]map[uint64]int, readers) // how many, of each lane
	for i, c := range consumers {
		read[i] = map[uint64]int{}
		reading.Go(func() {
			for {
				m, err := c.Next(ctx)
				if err != nil {
					if !errors.Is(err, ErrCancelled) {
						t.Errorf("consumer %d: %v", i, err)
					}
					return
				}
				n := int(binary.LittleEndian.Uint64(m.Payload))
				if n == doneMark {
					if read[i][doneMark]++; read[i][doneMark] == lanes {
						return
					}
					continue
				}
				if n != read[i][m.Lane] || m.Lost != 0 {
					t.Errorf("consumer %d, lane %d: message %d with %d lost, want %d", i, m.Lane, n, m.Lost, read[i][m.Lane])
					cancel()
					return
				}
				read[i][m.Lane]++
			}
		})
	}
	for range restarts {
		f.stop()
		f.set(func() { f.partial = true })
		f.start()
		f.await("everybody to come back", func() bool { return f.count() == lanes+readers })
		before := f.seenOf(attach.KindPull)
		f.set(func() { f.partial = false; f.raiseLocked() })
		f.await("everybody to ask for members", func() bool { return f.seen[attach.KindPull] >= before+lanes+readers })
	}
	close(stop)
	publishing.Wait()
	for _, p := range producers {
		publish(t, p, doneMark, doneMark+1)
	}
	reading.Wait()
	for range lanes {
		for lane, n := range <-counts {
			for i := range read {
				if read[i][lane] != n || n == 0 {
					t.Errorf("consumer %d read %d of the %d messages of lane %d", i, read[i][lane], n, lane)
				}
			}
		}
	}
}

// doneMark is the number of a producer's last message.
const doneMark = 1 << 40

func (f *fake) seenOf(kind attach.Kind) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.seen[kind]
}

// refuse makes the daemon refuse one kind of request.
func (f *fake) refuse(kind attach.Kind, err error) {
	f.set(func() {
		f.hook = func(q attach.Request) error {
			if q.Kind() == kind {
				return err
			}
			return nil
		}
	})
}

func TestRefusedAdoptionClosesTheHandle(t *testing.T) {
	f := newFake(t, nil)
	p := f.producer(t)
	c := f.consumer(t, ConsumerOptions{})
	waiting := make(chan error)
	go func() {
		_, err := c.Next(context.Background())
		waiting <- err
	}()
	f.stop()
	f.refuse(attach.KindAdopt, reason.New(reason.AccessDenied, "you are not who you were"))
	f.start()
	if err := <-waiting; !errors.Is(err, ErrDenied) {
		t.Errorf("the call that waited: %v", err)
	}
	if _, _, err := c.TryNext(); !errors.Is(err, ErrDenied) || err.Error() != "/ring: you are not who you were" {
		t.Errorf("a later call: %v", err)
	}
	for err := error(nil); !errors.Is(err, ErrDenied); err = p.Publish(1, nil) {
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if _, _, err := c.TryNext(); !errors.Is(err, ErrDenied) { // Close does not change why
		t.Errorf("after Close: %v", err)
	}
}

func TestPassingTroubleDoesNotEndMembership(t *testing.T) {
	f := newFake(t, nil)
	c := f.consumer(t, ConsumerOptions{})
	p := f.producer(t)
	for _, trouble := range []error{reason.New(reason.ShuttingDown, "not now"), reason.New(reason.Internal, "a defect"), errDrop} {
		f.stop()
		f.refuse(attach.KindAdopt, trouble)
		before := f.seenOf(attach.KindAdopt)
		f.start()
		f.await("some attempts", func() bool { return f.seen[attach.KindAdopt] >= before+4 })
		f.set(func() { f.hook = nil })
		f.await("both to come back", func() bool { return f.count() == 2 })
	}
	publish(t, p, 0, 10)
	expect(t, c, 0, 10)
}

func TestDeletedRingClosesItsHandles(t *testing.T) {
	f := newFake(t, func(f *fake) { f.lossless = true })
	p := f.producer(t)
	c := f.consumer(t, ConsumerOptions{Lossless: true})
	idle := f.consumer(t, ConsumerOptions{From: Oldest})
	full := f.producer(t)
	fill(t, full)
	waiting := make(chan error)
	go func() { waiting <- full.Publish(1, make([]byte, 1000)) }()
	go func() {
		_, err := idle.Next(context.Background())
		for err == nil {
			_, err = idle.Next(context.Background())
		}
		waiting <- err
	}()
	f.refuse(attach.KindPull, reason.New(reason.RingDeleted, "it was deleted"))
	f.raise()
	for range 2 {
		if err := <-waiting; !errors.Is(err, ErrDeleted) {
			t.Errorf("a call that waited: %v", err)
		}
	}
	for err := error(nil); !errors.Is(err, ErrDeleted); err = p.Publish(1, nil) {
		if err != nil && !errors.Is(err, ErrDeleted) {
			t.Fatal(err)
		}
	}
	for err := error(nil); !errors.Is(err, ErrDeleted); _, err = c.Next(deadline(t)) {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestSilentDaemonDoesNotKeepMembersFromWorking(t *testing.T) {
	f := newFake(t, nil)
	p := f.producer(t)
	c := f.consumer(t, ConsumerOptions{})
	heard := f.silence(t, attach.KindPull)
	f.raise()
	publish(t, p, 0, 1000)
	expect(t, c, 0, 1000)
	<-heard // and yet
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func TestCloseEndsCallsThatWait(t *testing.T) {
	for _, away := range []bool{false, true} {
		t.Run(fmt.Sprintf("away=%v", away), func(t *testing.T) {
			f := newFake(t, func(f *fake) { f.lossless = true })
			p := f.producer(t)
			c := f.consumer(t, ConsumerOptions{})
			f.consumer(t, ConsumerOptions{Lossless: true})
			fill(t, p)
			if away {
				f.stop()
			}
			waiting := make(chan error)
			go func() { waiting <- p.Publish(1, make([]byte, 1000)) }()
			go func() {
				_, err := c.Next(context.Background())
				for err == nil {
					_, err = c.Next(context.Background())
				}
				waiting <- err
			}()
			var closing sync.WaitGroup
			for range 3 {
				closing.Go(func() {
					if err := errors.Join(p.Close(), c.Close()); err != nil {
						t.Error(err)
					}
				})
			}
			for range 2 {
				if err := <-waiting; !errors.Is(err, ErrClosed) {
					t.Errorf("a call that waited: %v", err)
				}
			}
			closing.Wait()
			if err := p.Publish(1, nil); !errors.Is(err, ErrClosed) {
				t.Errorf("Publish after Close: %v", err)
			}
			if _, err := c.View(deadline(t)); !errors.Is(err, ErrClosed) {
				t.Errorf("View after Close: %v", err)
			}
			if s := c.Stats(); s.Received != 0 {
				t.Errorf("stats after Close: %+v", s)
			}
		})
	}
}

func TestCloseLeavesInGoodOrder(t *testing.T) {
	f := newFake(t, nil)
	p := f.producer(t)
	c := f.consumer(t, ConsumerOptions{})
	publish(t, p, 0, 10)
	p.Close()
	expect(t, c, 0, 10) // what was published can still be read
	c.Close()
	f.await("two DETACH", func() bool { return f.seen[attach.KindDetach] == 2 })
}
