//go:build linux

package ring

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ipcd/ipcd/internal/attach"
	"github.com/ipcd/ipcd/internal/reason"
	"github.com/ipcd/ipcd/internal/shm"
)

// try attaches both ways and closes what came of it.
func try(ctx context.Context, path string, lossless bool) (producer, consumer error) {
	p, producer := NewProducer(ctx, "/ring", ProducerOptions{Attach: path})
	if producer == nil {
		p.Close()
	}
	c, consumer := NewConsumer(ctx, "/ring", ConsumerOptions{Attach: path, Lossless: lossless})
	if consumer == nil {
		c.Close()
	}
	return producer, consumer
}

func TestRefusalsSayWhatTheDaemonSaid(t *testing.T) {
	f := newFake(t, nil)
	for r, want := range map[reason.Reason]error{
		reason.RingNotFound: ErrNotFound, reason.AccessDenied: ErrDenied, reason.QuotaExceeded: ErrQuota, reason.RingDeleted: ErrDeleted,
		reason.InvalidArgument: ErrInvalidArgument, reason.ShuttingDown: ErrShuttingDown, reason.Internal: ErrInternal,
	} {
		for _, kind := range []attach.Kind{attach.KindAttach, attach.KindReady, attach.KindPull} {
			f.set(func() {
				f.hook = func(q attach.Request) error {
					if q.Kind() == kind {
						return reason.New(r, "because of %s", r).On("/ring")
					}
					return nil
				}
			})
			p, c := try(deadline(t), f.path, false)
			for _, err := range []error{p, c} {
				var e *Error
				if !errors.Is(err, want) || !errors.As(err, &e) || e.Error() != "/ring: because of "+string(r) {
					t.Errorf("%s to %s: %v", r, kind, err)
				}
			}
		}
	}
}

func TestErrnosWithoutReasonHaveOne(t *testing.T) {
	for status, want := range map[uint32]error{2: ErrNotFound, 13: ErrDenied, 122: ErrQuota, 28: ErrQuota, 43: ErrDeleted, 108: ErrShuttingDown, 22: ErrInvalidArgument, 38: ErrUnimplemented, 71: ErrInternal} {
		err := refused(attach.ErrorReply{Status: status})
		if !errors.Is(err, want) {
			t.Errorf("%d: %v", status, err)
		}
		if isPassing(err) != (status == 108) {
			t.Errorf("%d: another try may help: %v", status, isPassing(err))
		}
	}
	if err := refused(attach.ErrorReply{Status: 11}); !isPassing(err) {
		t.Errorf("EAGAIN: %v", err)
	}
}

func TestNobodyThereIsUnreachable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none.sock")
	for range 2 {
		p, c := try(deadline(t), path, false)
		for _, err := range []error{p, c} {
			if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), path) {
				t.Errorf("%v", err)
			}
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil { // and now no socket
			t.Fatal(err)
		}
	}
}

func TestHangUpWhileAttachingIsUnreachable(t *testing.T) {
	f := newFake(t, nil)
	for _, kind := range []attach.Kind{attach.KindAttach, attach.KindReady, attach.KindPull} {
		f.set(func() {
			f.hook = func(q attach.Request) error {
				if q.Kind() == kind {
					return errDrop
				}
				return nil
			}
		})
		p, c := try(deadline(t), f.path, false)
		if !errors.Is(p, ErrUnreachable) || !errors.Is(c, ErrUnreachable) {
			t.Errorf("at %s: %v; %v", kind, p, c)
		}
	}
}

// silence makes the daemon say nothing to one kind of request until the test ends.
func (f *fake) silence(t *testing.T, kind attach.Kind) (heard <-chan struct{}) {
	t.Helper()
	end := make(chan struct{})
	h := make(chan struct{}, 100)
	t.Cleanup(func() { close(end) })
	f.set(func() {
		f.hook = func(q attach.Request) error {
			if q.Kind() == kind {
				h <- struct{}{}
				<-end
				return errDrop
			}
			return nil
		}
	})
	return h
}

func TestSilentDaemonIsGivenUp(t *testing.T) {
	for _, kind := range []attach.Kind{attach.KindAttach, attach.KindReady, attach.KindPull} {
		t.Run(kind.String(), func(t *testing.T) {
			f := newFake(t, nil)
			heard := f.silence(t, kind)
			ctx, cancel := context.WithCancel(deadline(t))
			go func() {
				<-heard
				cancel()
			}()
			if _, err := NewProducer(ctx, "/ring", ProducerOptions{Attach: f.path}); !errors.Is(err, ErrCancelled) {
				t.Errorf("by its caller: %v", err)
			}
			ctx, cancel = context.WithTimeout(context.Background(), time.Millisecond)
			defer cancel()
			if _, err := NewConsumer(ctx, "/ring", ConsumerOptions{Attach: f.path}); !errors.Is(err, ErrTimedOut) {
				t.Errorf("by its deadline: %v", err)
			}
			_, _, _, err := join(deadline(t), request{name: "/ring", attach: f.path, role: attach.Producer, answer: time.Millisecond})
			if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "does not answer") {
				t.Errorf("of itself: %v", err)
			}
		})
	}
}

func TestRepliesThatMakeNoSenseAreRefused(t *testing.T) {
	member := func(change func(*attach.Memory)) func(attach.Reply) attach.Reply {
		return func(r attach.Reply) attach.Reply {
			if m, ok := r.(attach.Memory); ok {
				change(&m)
				return m
			}
			return r
		}
	}
	entry := func(change func(*attach.Entry)) func(attach.Reply) attach.Reply {
		return func(r attach.Reply) attach.Reply {
			if m, ok := r.(attach.Members); ok {
				for i := range m.Entries {
					change(&m.Entries[i])
				}
				return m
			}
			return r
		}
	}
	for name, c := range map[string]struct {
		twist func(attach.Reply) attach.Reply
		as    attach.Role
	}{
		"another kind":            {func(attach.Reply) attach.Reply { return attach.Detached{} }, attach.Consumer},
		"lane larger than it is":  {member(func(m *attach.Memory) { m.Capacity *= 2 }), attach.Producer},
		"odd capacity":            {member(func(m *attach.Memory) { m.Capacity++ }), attach.Producer},
		"frames too large":        {member(func(m *attach.Memory) { m.MaxFrame = uint32(m.Capacity) }), attach.Producer},
		"peer's lane too large":   {entry(func(e *attach.Entry) { e.Capacity *= 2 }), attach.Consumer},
		"peer's odd lane":         {entry(func(e *attach.Entry) { e.Capacity-- }), attach.Consumer},
		"peer's frames too large": {entry(func(e *attach.Entry) { e.MaxFrame *= 8 }), attach.Consumer},
		"wrong kind of peer":      {entry(func(e *attach.Entry) { e.Kind = attach.EntryConsumer }), attach.Consumer},
		"peer without memory":     {entry(func(e *attach.Entry) { e.File = false }), attach.Consumer},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t, nil)
			f.producer(t) // is in lists
			f.set(func() {
				f.twist = func(r attach.Reply, files []*os.File) (attach.Reply, []*os.File) {
					r = c.twist(r)
					for _, superfluous := range files[r.Files():] {
						if superfluous.Name() != "member" { // those are the fake's own
							superfluous.Close()
						}
					}
					return r, files[:r.Files()]
				}
			})
			defer f.set(func() { f.twist = nil })
			_, _, _, err := join(deadline(t), request{name: "/ring", attach: f.path, role: c.as})
			if !errors.Is(err, ErrInternal) {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestLosslessIsNotPromisedWhereTheRingIsNot(t *testing.T) {
	f := newFake(t, nil)
	f.set(func() {
		f.twist = func(r attach.Reply, files []*os.File) (attach.Reply, []*os.File) {
			if m, ok := r.(attach.Memory); ok {
				m.Lossless = false
				r = m
			}
			return r, files
		}
	})
	if _, err := try(deadline(t), f.path, true); !errors.Is(err, ErrInvalidArgument) {
		t.Errorf("%v", err)
	}
}

func TestNamesAndAddressesAreChecked(t *testing.T) {
	ctx := deadline(t)
	for _, name := range []string{"", "/", "ticks", "/" + strings.Repeat("x", 201), "/a\x00b"} {
		if _, err := NewProducer(ctx, name, ProducerOptions{Attach: "/nowhere"}); !errors.Is(err, ErrInvalidArgument) {
			t.Errorf("name %q: %v", name, err)
		}
	}
	for _, path := range []string{"attach.sock", "unix:attach.sock", "/" + strings.Repeat("x", 107), "127.0.0.1:7475"} {
		if _, err := NewConsumer(ctx, "/ring", ConsumerOptions{Attach: path}); !errors.Is(err, ErrInvalidArgument) {
			t.Errorf("path %q: %v", path, err)
		}
	}
}

func TestAttachSocketIsFoundWhereTheDaemonIs(t *testing.T) {
	run := t.TempDir()
	if err := os.MkdirAll(filepath.Join(run, "ipcd"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(run, "ipcd", "attach.sock"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	ordinary := systemSocket
	if os.Geteuid() != 0 {
		ordinary = filepath.Join(run, "ipcd", "attach.sock")
	}
	for _, c := range []struct{ attach, address, want string }{
		{"", "", ordinary},
		{"/a/b.sock", "unix:///x/ipcd.sock", "/a/b.sock"},
		{"", "unix:///x/ipcd.sock", "/x/attach.sock"},
		{"", "unix:/x/ipcd.sock", "/x/attach.sock"},
		{"", "/x/y/ipcd.sock", "/x/y/attach.sock"},
		{"", "127.0.0.1:7475", ordinary},
	} {
		t.Setenv("XDG_RUNTIME_DIR", run)
		t.Setenv("IPCD_ATTACH", c.attach)
		t.Setenv("IPCD_ADDRESS", c.address)
		if got := DefaultAttach(); got != c.want {
			t.Errorf("IPCD_ATTACH=%s IPCD_ADDRESS=%s: %s, want %s", c.attach, c.address, got, c.want)
		}
	}
}

func TestIncompleteListsTakeNobodyAway(t *testing.T) {
	file, err := shm.CreateMemory("peer", shm.ConsumerSize)
	if err != nil {
		t.Fatal(err)
	}
	p := newPeers(attach.Producer)
	entry := attach.Entry{ID: 7, Kind: attach.EntryConsumer, File: true}
	for i, step := range []struct {
		list attach.Members
		want int
	}{
		{attach.Members{Entries: []attach.Entry{entry}}, 1},
		{attach.Members{Partial: true}, 1},
		{attach.Members{}, 0},
	} {
		var files []*os.File
		if step.list.Files() > 0 {
			files = append(files, file) // and it is closed
		}
		m, err := p.learn(step.list, files)
		if err != nil || len(m.Consumers) != step.want || m.Partial != step.list.Partial {
			t.Errorf("step %d: %+v, %v; want %d", i, m, err, step.want)
		}
		drop(m)
	}
	expectNothingMapped(t)
}
