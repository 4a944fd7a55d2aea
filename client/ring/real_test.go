//go:build linux

package ring

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"

	"github.com/ipcd/ipcd/broker/ring"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/shm"
	"github.com/ipcd/ipcd/transport/shmring"
)

// real is the daemon's own rings and attach socket, over several runs.
type real struct {
	t     *testing.T
	dir   string // the state directory
	path  string
	who   identity.Identity
	rings *ring.Rings
	stop  func()
}

func newReal(t *testing.T) *real {
	t.Helper()
	dir, err := os.MkdirTemp("", "ring") // short: the path of a socket has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	d := &real{t: t, dir: t.TempDir(), path: filepath.Join(dir, "attach.sock"),
		who: identity.Identity{Kind: identity.Unix, UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}}
	d.start()
	t.Cleanup(func() {
		d.stop()
		os.RemoveAll(dir)
		expectNothingMapped(t)
	})
	return d
}

func (d *real) start() {
	d.t.Helper()
	r, err := ring.Open(ring.Options{Logger: zaptest.NewLogger(d.t), Dir: d.dir, BootID: "boot", Root: d.t.TempDir(), AdoptWindow: limits.RingAdoptWindow})
	if err != nil {
		d.t.Fatal(err)
	}
	l, err := shmring.Listen(d.path)
	if err != nil {
		d.t.Fatal(err)
	}
	s := shmring.New(shmring.Options{Rings: shmring.Over(r), Logger: zaptest.NewLogger(d.t)})
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := s.Serve(l); err != nil {
			d.t.Error(err)
		}
	})
	d.rings = r
	d.stop = sync.OnceFunc(func() {
		s.Stop()
		serving.Wait()
		r.Close()
	})
}

func (d *real) create(policy ring.Policy) {
	d.t.Helper()
	_, _, err := d.rings.Create(context.Background(), d.who, "/ring", func(s *ring.Settings) error {
		s.Capacity, s.Policy, s.Stall = limits.RingCapacityMin, policy, limits.RingStallMax
		return nil
	}, false)
	if err != nil {
		d.t.Fatal(err)
	}
}

func (d *real) producer() *Producer {
	d.t.Helper()
	p, err := NewProducer(deadline(d.t), "/ring", ProducerOptions{Attach: d.path, Logger: logTo(d.t)})
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { p.Close() })
	return p
}

func (d *real) consumer(o ConsumerOptions) *Consumer {
	d.t.Helper()
	o.Attach, o.Logger = d.path, logTo(d.t)
	c, err := NewConsumer(deadline(d.t), "/ring", o)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { c.Close() })
	return c
}

func TestDaemonRefusesInItsOwnWords(t *testing.T) {
	d := newReal(t)
	p, c := try(deadline(t), d.path, false)
	if !errors.Is(p, ErrNotFound) || !errors.Is(c, ErrNotFound) {
		t.Errorf("no ring: %v; %v", p, c)
	}
	d.create(ring.Overwrite)
	p, c = try(deadline(t), d.path, true)
	if p != nil || !errors.Is(c, ErrInvalidArgument) || strings.Count(c.Error(), "/ring") != 1 {
		t.Errorf("lossless of an overwrite ring: %v; %v", p, c)
	}
	var all []*Producer
	for {
		p, err := NewProducer(deadline(t), "/ring", ProducerOptions{Attach: d.path})
		if err != nil {
			if !errors.Is(err, ErrQuota) || len(all) == 0 {
				t.Errorf("after %d: %v", len(all), err)
			}
			break
		}
		all = append(all, p)
		t.Cleanup(func() { p.Close() })
	}
}

func TestMessagesReachGRPCSubscribersAndPublishersReachConsumers(t *testing.T) {
	d := newReal(t)
	d.create(ring.Overwrite)
	p, c := d.producer(), d.consumer(ConsumerOptions{})
	s, err := d.rings.Subscribe(deadline(t), d.who, "/ring", ring.SubscribeOptions{Start: shm.Oldest})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	publish(t, p, 0, 1)
	expect(t, c, 0, 1)
	into := make([]shm.Message, 1)
	if n, err := s.Next(deadline(t), into); n != 1 || err != nil || into[0].Lane != p.Lane() {
		t.Errorf("%d, %v, %+v", n, err, into[0])
	}
	if _, _, err := d.rings.Publish(deadline(t), d.who, "/ring", []shm.Message{{Type: 3, Payload: []byte("from afar")}}); err != nil {
		t.Fatal(err)
	}
	if m, err := c.Next(deadline(t)); err != nil || m.Type != 3 || string(m.Payload) != "from afar" {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestDaemonsDeletionClosesHandles(t *testing.T) {
	d := newReal(t)
	d.create(ring.Overwrite)
	p, c := d.producer(), d.consumer(ConsumerOptions{})
	waiting := make(chan error)
	go func() {
		_, err := c.Next(context.Background())
		waiting <- err
	}()
	if _, err := d.rings.Delete(context.Background(), d.who, "/ring"); err != nil {
		t.Fatal(err)
	}
	if err := <-waiting; !errors.Is(err, ErrDeleted) {
		t.Errorf("%v", err)
	}
	for err := error(nil); !errors.Is(err, ErrDeleted); err = p.Publish(1, nil) {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestNothingIsLostThroughRestartsOfTheDaemon is TestNothingIsLostThroughRestarts with the daemon itself.
func TestNothingIsLostThroughRestartsOfTheDaemon(t *testing.T) {
	d := newReal(t)
	d.create(ring.Lossless)
	c := d.consumer(ConsumerOptions{Lossless: true})
	producers := []*Producer{d.producer(), d.producer()}
	ctx := deadline(t)
	stop := make(chan struct{})
	var publishing sync.WaitGroup
	for _, p := range producers {
		publishing.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					n = doneMark
				default:
				}
				if err := p.PublishContext(ctx, 1, number(n)); err != nil {
					t.Errorf("message %d of lane %d: %v", n, p.Lane(), err)
					return
				}
				if n == doneMark {
					return
				}
			}
		})
	}
	reading := make(chan map[uint64]int)
	go func() {
		next := map[uint64]int{}
		defer func() { reading <- next }()
		for done := 0; done < len(producers); {
			m, err := c.Next(ctx)
			if err != nil {
				t.Error(err)
				return
			}
			n := int(binary.LittleEndian.Uint64(m.Payload))
			switch {
			case n == doneMark:
				done++
			case n != next[m.Lane] || m.Lost != 0:
				t.Errorf("lane %d: message %d with %d lost, want %d", m.Lane, n, m.Lost, next[m.Lane])
				return
			default:
				next[m.Lane]++
			}
		}
	}()
	for range 2 {
		d.stop()
		d.start()
		d.awaitMembers(3)
	}
	d.consumer(ConsumerOptions{}) // who joins has to wait until all have had the time to come back
	close(stop)
	publishing.Wait()
	for lane, n := range <-reading {
		t.Logf("lane %d: %d messages", lane, n)
	}
}

// awaitMembers waits until so many are attached.
func (d *real) awaitMembers(n int) {
	d.t.Helper()
	until := time.Now().Add(patience)
	for {
		info, err := d.rings.Get(context.Background(), d.who, "/ring")
		if err != nil {
			d.t.Fatal(err)
		}
		live := len(info.Consumers)
		for _, lane := range info.Lanes {
			if !lane.Ended {
				live++
			}
		}
		if live >= n {
			return
		}
		if time.Now().After(until) {
			d.t.Fatalf("only %d of %d members came back within %v", live, n, patience)
		}
		time.Sleep(time.Millisecond) // the broker has nothing to wait for
	}
}
