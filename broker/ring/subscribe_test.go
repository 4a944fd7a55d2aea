package ring

import (
	"context"
	"encoding/binary"
	"sync"
	"testing"

	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
	"github.com/ipcd/ipcd/internal/shm"
)

func TestEvictedSubscriptionReadsOn(t *testing.T) {
	w := newWorld(t, Options{})
	w.create(alice, "/r", func(s *Settings) error { s.Stall = limits.RingStallMin; return smallLossless(s) })
	s := w.subscribe(SubscribeOptions{Lossless: true})
	for range 100 {
		if _, _, err := w.Publish(context.Background(), bob, "/r", large(1)); err != nil {
			t.Fatal(err)
		}
	}
	if i := w.info("/r"); i.Lanes[0].Evictions != 1 || len(i.Consumers[0].Lanes) != 1 || !i.Consumers[0].Lanes[0].Evicted {
		t.Errorf("%+v", i)
	}
	batch := make([]shm.Message, 1)
	evicted, lost, read := 0, uint64(0), uint64(0)
	for lost+read < 100 {
		_, err := s.Next(context.Background(), batch)
		if err != nil {
			wants(t, err, reason.ConsumerEvicted)
			evicted++
			continue
		}
		lost += batch[0].Lost
		read++
	}
	// It joined before the lane, so that what it lost counts from the lane's first message on.
	if evicted != 1 || lost == 0 || lost+read != 100 {
		t.Errorf("evicted %d times, read %d, lost %d", evicted, read, lost)
	}
}

func TestCorruptLaneIsToldOnceAndOthersGoOn(t *testing.T) {
	w := newWorld(t, Options{})
	w.create(alice, "/r", small)
	s := w.subscribe(SubscribeOptions{})
	p := w.producer(alice, "/r")
	binary.LittleEndian.PutUint64(p.memory.Bytes()[shm.PageSize:], 33) // published: no multiple of 32
	_, err := s.Next(context.Background(), make([]shm.Message, 1))
	wants(t, err, reason.RingCorrupt)
	w.publish(5)
	if got := s.read(t, 1); got[0] != 5 {
		t.Errorf("read %v", got)
	}
	if i := w.info("/r"); i.Lanes[0].Position != 33 { // shown as its producer says it
		t.Errorf("%+v", i.Lanes[0])
	}
}

func TestClosedSubscriptionIsOver(t *testing.T) {
	w := newWorld(t, Options{})
	w.create(alice, "/r", small)
	before := descriptors(t)
	s := w.subscribe(SubscribeOptions{})
	waiting := make(chan error)
	go func() {
		_, err := s.Next(context.Background(), make([]shm.Message, 1))
		waiting <- err
	}()
	soon(t, "it waits", func() bool { return w.info("/r").Consumers[0].Parked })
	s.Close()
	s.Close()
	wants(t, <-waiting, reason.Cancelled)
	_, err := s.Next(context.Background(), make([]shm.Message, 1))
	wants(t, err, reason.Cancelled)
	ended, cancel := context.WithCancel(context.Background())
	s = w.subscribe(SubscribeOptions{})
	cancel()
	if _, err := s.Next(ended, make([]shm.Message, 1)); err != context.Canceled {
		t.Error(err)
	}
	s.Close()
	if len(w.info("/r").Consumers) != 0 {
		t.Error("it is still there")
	}
	soon(t, "nothing is charged", func() bool { return w.info("/r").Bytes == 0 })
	if after := descriptors(t); after != before+1 { // the members page
		t.Errorf("%d descriptors are open, %d were before", after, before)
	}
}

func TestSubscriptionsComeAndGoAmidMessages(t *testing.T) {
	w := newWorld(t, Options{})
	w.create(alice, "/r", smallLossless)
	stop := make(chan struct{})
	var publishing, subscribing sync.WaitGroup
	publishing.Go(func() {
		for n := int64(1); ; n++ {
			select {
			case <-stop:
				return
			default:
				if _, _, err := w.Publish(context.Background(), bob, "/r", messages(n)); err != nil {
					t.Error(err)
					return
				}
			}
		}
	})
	for range 3 {
		subscribing.Go(func() {
			for range 30 {
				s, err := w.Subscribe(context.Background(), bob, "/r", SubscribeOptions{Lossless: true})
				if err != nil {
					t.Error(err)
					return
				}
				batch := make([]shm.Message, 1)
				last := int64(0)
				for range 20 {
					if _, err := s.Next(context.Background(), batch); err != nil {
						t.Error(err)
						break
					}
					if m := batch[0]; last != 0 && (m.Type != last+1 || m.Lost != 0) {
						t.Errorf("message %d after %d: %+v", m.Type, last, m)
					}
					last = batch[0].Type
				}
				s.Close()
			}
		})
	}
	subscribing.Wait()
	close(stop)
	publishing.Wait()
	soon(t, "only the lane is charged", func() bool { return w.info("/r").Bytes == laneSize })
}
