package rpc

import (
	"context"
	"errors"
	"io"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/ipcd/ipcd/broker"
	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// shelf is a queue to peek into: messages in the order of receiving, which is not that of sequence.
type shelf struct {
	mu       sync.Mutex
	messages []queue.Peeked
	last     uint64
	arrived  chan struct{}
	pageSize int
	onPage   func(page int) // runs after each page was made
	pages    int
}

func newShelf(pageSize int) *shelf { return &shelf{arrived: make(chan struct{}), pageSize: pageSize} }

// add lets a message arrive, in front of all others if it is urgent.
func (s *shelf) add(urgent bool, body int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last++
	m := queue.Peeked{Delivery: queue.Delivery{Message: queue.Message{Type: 1, Body: make([]byte, body)}, Sequence: s.last}, State: queue.Ready}
	if urgent {
		s.messages = slices.Insert(s.messages, 0, m)
	} else {
		s.messages = append(s.messages, m)
	}
	close(s.arrived)
	s.arrived = make(chan struct{})
}

func (s *shelf) peek(r broker.PeekRequest) (broker.PeekPage, error) {
	s.mu.Lock()
	page := broker.PeekPage{Last: s.last}
	from := uint64(0) // the cursor is the sequence of the last one shown
	if r.Cursor != "" {
		from, _ = strconv.ParseUint(r.Cursor, 10, 64)
	}
	begun := from == 0
	bytes := 0
	for _, m := range s.messages {
		if !begun {
			begun = m.Sequence == from
			continue
		}
		if m.Sequence < r.Filter.MinSequence || r.Filter.MaxSequence != 0 && m.Sequence > r.Filter.MaxSequence {
			continue
		}
		if n := len(page.Messages); n > 0 && (n >= min(r.Max, s.pageSize) || bytes+len(m.Body) > limits.PeekPageBytes) {
			page.Cursor = strconv.FormatUint(page.Messages[n-1].Sequence, 10)
			break
		}
		page.Messages = append(page.Messages, m)
		bytes += len(m.Body)
	}
	s.pages++
	pages := s.pages
	s.mu.Unlock()
	if s.onPage != nil {
		s.onPage(pages)
	}
	return page, nil
}

func (s *shelf) await(ctx context.Context, after uint64) error {
	for {
		s.mu.Lock()
		last, arrived := s.last, s.arrived
		s.mu.Unlock()
		if last > after {
			return nil
		}
		select {
		case <-arrived:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func peekOn(t *testing.T, s *shelf, r *ipcdv1.PeekRequest) ipcdv1.MessageService_PeekClient {
	t.Helper()
	h := serve(t, &fakeBroker{peek: s.peek, await: s.await})
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	stream, err := h.messages.Peek(ctx, r)
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

// sequences reads until n messages or the end came.
func sequences(t *testing.T, stream ipcdv1.MessageService_PeekClient, n int) (all []uint64, pages int, cursor string) {
	t.Helper()
	for len(all) < n {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range r.Messages {
			all = append(all, m.Sequence)
		}
		pages++
		cursor = r.Cursor
	}
	return all, pages, cursor
}

func TestPeekStreamsPages_S20(t *testing.T) {
	s := newShelf(3)
	for i := range 8 {
		s.add(i%2 == 1, 1)
	}
	all, pages, cursor := sequences(t, peekOn(t, s, &ipcdv1.PeekRequest{Queue: "/q"}), 100)
	if want := []uint64{8, 6, 4, 2, 1, 3, 5, 7}; !equal(all, want) || pages != 3 || cursor != "" {
		t.Errorf("%v in %d pages, cursor %q; want %v in 3", all, pages, cursor, want)
	}
}

func TestPeekStopsAtItsLimitAndGoesOnFromTheCursor_S20(t *testing.T) {
	s := newShelf(3)
	for range 8 {
		s.add(false, 1)
	}
	all, pages, cursor := sequences(t, peekOn(t, s, &ipcdv1.PeekRequest{Queue: "/q", Limit: 5}), 100)
	if want := []uint64{1, 2, 3, 4, 5}; !equal(all, want) || pages != 2 || cursor != "5" {
		t.Errorf("%v in %d pages, cursor %q", all, pages, cursor)
	}
	all, _, cursor = sequences(t, peekOn(t, s, &ipcdv1.PeekRequest{Queue: "/q", Cursor: cursor}), 100)
	if want := []uint64{6, 7, 8}; !equal(all, want) || cursor != "" {
		t.Errorf("from the cursor: %v, cursor %q", all, cursor)
	}
}

func TestFollowShowsArrivalsOnceAndBySequence_S20(t *testing.T) {
	s := newShelf(3)
	for range 5 {
		s.add(false, 1)
	}
	// While the first pages are made, messages arrive that belong in front and behind.
	s.onPage = func(page int) {
		if page <= 2 {
			s.add(true, 1)
			s.add(false, 1)
		}
	}
	stream := peekOn(t, s, &ipcdv1.PeekRequest{Queue: "/q", Follow: true})
	all, _, _ := sequences(t, stream, 9)
	if want := []uint64{1, 2, 3, 4, 5, 6, 7, 8, 9}; !equal(all, want) {
		t.Errorf("%v, want %v", all, want)
	}
	for range 5 {
		s.add(true, 1)
	}
	all, _, _ = sequences(t, stream, 5)
	if want := []uint64{10, 11, 12, 13, 14}; !equal(all, want) {
		t.Errorf("then %v, want %v", all, want)
	}
}

func TestFollowKeepsToItsLimitAndItsLastSequence(t *testing.T) {
	for name, r := range map[string]*ipcdv1.PeekRequest{
		"limit":        {Queue: "/q", Follow: true, Limit: 3},
		"max_sequence": {Queue: "/q", Follow: true, Filter: &ipcdv1.Filter{MaxSequence: 3}},
		"min_sequence": {Queue: "/q", Follow: true, Filter: &ipcdv1.Filter{MinSequence: 4, MaxSequence: 6}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newShelf(10)
			s.add(false, 1)
			if name == "min_sequence" {
				s.add(false, 1)
				s.add(false, 1)
				s.add(false, 1)
			}
			s.onPage = func(int) { s.add(true, 1) }
			all, _, _ := sequences(t, peekOn(t, s, r), 100)
			want := []uint64{1, 2, 3}
			if name == "min_sequence" {
				want = []uint64{4, 5, 6}
			}
			if !equal(all, want) {
				t.Errorf("%v, want %v", all, want)
			}
		})
	}
}

func TestFollowHoldsNoMoreThanAPageOfLargeBodies(t *testing.T) {
	s, following := newShelf(10), make(chan struct{})
	s.onPage = func(page int) {
		if page == 1 {
			close(following)
		}
	}
	stream := peekOn(t, s, &ipcdv1.PeekRequest{Queue: "/q", Follow: true})
	<-following // what comes from now on is an arrival
	s.mu.Lock()
	for i := range 9 { // all at once, and urgent ones last
		m := queue.Peeked{Delivery: queue.Delivery{Message: queue.Message{Body: make([]byte, limits.PeekPageBytes/2)}, Sequence: uint64(i + 1)}}
		s.messages = slices.Insert(s.messages, 0, m)
	}
	s.last = 9
	close(s.arrived)
	s.arrived = make(chan struct{})
	s.mu.Unlock()
	var all []uint64
	for len(all) < 9 {
		r, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Messages) > 2 {
			t.Errorf("a page of %d messages, each half a page", len(r.Messages))
		}
		for _, m := range r.Messages {
			all = append(all, m.Sequence)
		}
	}
	if want := []uint64{1, 2, 3, 4, 5, 6, 7, 8, 9}; !equal(all, want) {
		t.Errorf("%v, want %v", all, want)
	}
}

func TestPeekShowsEverything(t *testing.T) {
	h := serve(t, &fakeBroker{peek: func(r broker.PeekRequest) (broker.PeekPage, error) {
		if !r.BySequence || r.MaxBody != 10 || r.Max != limits.PeekPage || len(r.Filter.States) != 1 || r.Filter.States[0] != queue.Buried {
			t.Errorf("request %+v", r)
		}
		d := deliveries(1, 10)[0]
		d.TruncatedFrom = 99
		return broker.PeekPage{Messages: []queue.Peeked{{Delivery: d, State: queue.Buried, Due: 1e9, Expires: 2e9, BuryReason: "why"}}}, nil
	}})
	stream, err := h.messages.Peek(t.Context(), &ipcdv1.PeekRequest{Queue: "/q", MaxBodyBytes: 10, Order: ipcdv1.PeekOrder_PEEK_ORDER_SEQUENCE, Filter: &ipcdv1.Filter{States: []ipcdv1.MessageState{ipcdv1.MessageState_MESSAGE_STATE_BURIED}}})
	if err != nil {
		t.Fatal(err)
	}
	r, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	m := r.Messages[0]
	if m.Sequence != 1 || m.State != ipcdv1.MessageState_MESSAGE_STATE_BURIED || m.Attempts != 3 || m.DueTime.Seconds != 1 || m.ExpireTime.Seconds != 2 ||
		m.BuryReason != "why" || m.TruncatedFrom != 99 || m.LeaseExpireTime.Seconds != 1_700_000_030 || len(m.Message.Body) != 10 || m.SendTime.Nanos != 1 {
		t.Errorf("message %v", m)
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("the end: %v", err)
	}
}

func TestAnUnknownOrderIsRefused(t *testing.T) {
	h := serve(t, &fakeBroker{})
	for _, order := range []ipcdv1.PeekOrder{-1, 3} {
		stream, err := h.messages.Peek(t.Context(), &ipcdv1.PeekRequest{Queue: "/q", Order: order})
		if err != nil {
			t.Fatal(err)
		}
		_, err = stream.Recv()
		wantInvalid(t, err, "order")
	}
}

func TestPeekOfADeletedQueueEnds_S23(t *testing.T) {
	h := serve(t, &fakeBroker{
		peek:  func(broker.PeekRequest) (broker.PeekPage, error) { return broker.PeekPage{}, nil },
		await: func(context.Context, uint64) error { return reason.New(reason.QueueDeleted, "gone") },
	})
	stream, err := h.messages.Peek(t.Context(), &ipcdv1.PeekRequest{Queue: "/q", Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	_, err = stream.Recv()
	wantReason(t, err, reason.QueueDeleted)
}
