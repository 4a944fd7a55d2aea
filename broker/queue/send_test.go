package queue

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
)

func TestQueueNames_S1(t *testing.T) {
	for _, good := range []string{"/a", "/Jobs.high-1_x", "/-", "/a.", "/" + strings.Repeat("x", 200)} {
		if err := CheckName(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"", "/", "a", "/.a", "/a/b", "//a", "/a b", "/ä", "/a\n", "\n/a", "/" + strings.Repeat("x", 201)} {
		if err := CheckName(bad); reason.Of(err) != reason.InvalidArgument {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestSettingsOutsideLimitsAreRefused_S2(t *testing.T) {
	good := Default(0, 0)
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	for field, edit := range map[string]func(*Settings){
		"max_messages":             func(s *Settings) { s.MaxMessages = 0 },
		"max_messages ":            func(s *Settings) { s.MaxMessages = limits.QueueMessagesMax + 1 },
		"max_bytes":                func(s *Settings) { s.MaxBytes = limits.QueueBytesMax + 1 },
		"max_message_size":         func(s *Settings) { s.MaxMessageSize = limits.MessageSizeMax + 1 },
		"lease":                    func(s *Settings) { s.Lease = limits.LeaseMin - 1 },
		"lease ":                   func(s *Settings) { s.Lease = limits.LeaseMax + 1 },
		"max_attempts":             func(s *Settings) { s.MaxAttempts = 0 },
		"max_attempts ":            func(s *Settings) { s.MaxAttempts = limits.MaxAttemptsMax + 1 },
		"backoff.initial":          func(s *Settings) { s.BackoffInitial = -1 },
		"backoff.max":              func(s *Settings) { s.BackoffInitial, s.BackoffMax = 2, 1 },
		"dedup_window":             func(s *Settings) { s.DedupWindow = limits.DedupWindowMax + 1 },
		"max_dedup_ids":            func(s *Settings) { s.MaxDedupIDs = limits.DedupIDsMax + 1 },
		"dead_letter_queue":        func(s *Settings) { s.DeadLetter = "no-slash" },
		"dead_letter_expired":      func(s *Settings) { s.DeadLetterExpired = true },
		"settings":                 func(s *Settings) { s.Overflow = DropOldest + 1 },
		"mode":                     func(s *Settings) { s.Mode = 0o1000 },
		"type_names":               func(s *Settings) { s.TypeNames = map[string]int64{"1st": 1} },
		"type_names ":              func(s *Settings) { s.TypeNames = map[string]int64{"a": 0} },
		"type_names  ":             func(s *Settings) { s.TypeNames = map[string]int64{"a": 1, "b": 1} },
		"mqueue.max_messages":      func(s *Settings) { s.Kernel.MaxMessages = -1 },
		"mqueue.message_size":      func(s *Settings) { s.Kernel.MessageSize = limits.MessageSizeMax + 1 },
		"mqueue.type":              func(s *Settings) { s.Kernel.Type = 0 },
		"selector of the out door": func(s *Settings) { s.Kernel.OutSelector = Selector{Kind: TypeIs} },
	} {
		s := Default(0, 0)
		edit(&s)
		if err := s.Check(); reason.Of(err) != reason.InvalidArgument {
			t.Errorf("%s: %v", field, err)
		}
	}
}

func TestMessageOutsideLimitsIsRefused_S2_S4(t *testing.T) {
	q := newQueue(nil)
	id := strings.Repeat("i", limits.IDLength+1)
	for name, m := range map[string]Message{
		"type 0":             {Type: 0},
		"negative type":      {Type: -1},
		"priority":           {Type: 1, Priority: limits.PriorityMax + 1},
		"delay":              {Type: 1, Delay: limits.DelayMax + 1},
		"negative delay":     {Type: 1, Delay: -1},
		"not before":         {Type: 1, NotBefore: -1},
		"ttl":                {Type: 1, TTL: limits.DelayMax + 1},
		"headers":            {Type: 1, Headers: make([]Header, limits.Headers+1)},
		"header without key": {Type: 1, Headers: make([]Header, 1)},
		"long header key":    {Type: 1, Headers: []Header{{strings.Repeat("k", limits.HeaderKeyLength+1), nil}}},
		"long header":        {Type: 1, Headers: []Header{{"k", make([]byte, limits.HeaderBytes)}}},
		"dedup id":           {Type: 1, DedupID: id},
		"correlation id":     {Type: 1, CorrelationID: id},
		"reply to":           {Type: 1, ReplyTo: id},
		"content type":       {Type: 1, ContentType: id},
	} {
		_, err := q.Send(at(0), Batch{Messages: []Message{text("first"), m}})
		if reason.Of(err) != reason.InvalidArgument || err.(*reason.Error).Index != 1 {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := q.Send(at(0), Batch{Messages: []Message{{Type: 1, Body: make([]byte, limits.MessageSizeDefault+1)}}})
	wantReason(t, err, reason.MessageTooLarge)
	for _, n := range []int{0, limits.BatchMessages + 1} {
		_, err := q.Send(at(0), Batch{Messages: repeat(n, text(""))})
		wantReason(t, err, reason.InvalidArgument)
	}
	want(t, "messages", q.Len(), 0)
	send(t, q, at(0), Message{Type: math.MaxInt64, Priority: limits.PriorityMax, Body: make([]byte, limits.MessageSizeDefault),
		Headers: []Header{{"k", make([]byte, limits.HeaderBytes-1)}}, DedupID: id[1:], CorrelationID: id[1:], ReplyTo: id[1:], ContentType: id[1:]})
	d := one(t, q, at(0))
	want(t, "type, priority, size", []any{d.Type, d.Priority, len(d.Body)}, []any{int64(math.MaxInt64), limits.PriorityMax, limits.MessageSizeDefault})
	consistent(t, q)
}

func TestBatchBytesAreLimited_S2(t *testing.T) {
	q := newQueue(func(s *Settings) { s.MaxMessageSize = limits.MessageSizeMax })
	half := Message{Type: 1, Body: make([]byte, limits.BatchBytes/2)}
	send(t, q, at(0), half, half)
	_, err := q.Send(at(0), Batch{Messages: []Message{half, half, text("x")}})
	wantReason(t, err, reason.InvalidArgument)
}

func TestQueueHoldsExactlyItsLimits_S3(t *testing.T) {
	// One message in each state, and the last place is taken by one message, not two.
	q := newQueue(func(s *Settings) { s.MaxMessages, s.MaxBytes = 5, 50 })
	send(t, q, at(0), repeat(2, text("0123456789"))...)
	receive(t, q, at(0), 1, Selector{})
	d := one(t, q, at(0))
	settle(t, q, nil, at(0), func(s Settlements) error { return s.Bury(d.Receipt, "") })
	send(t, q, at(0), Message{Type: 1, Delay: time.Hour, Body: []byte("0123456789")})
	if _, err := q.Send(at(0), Batch{Messages: []Message{text("0123456789")}}); err != nil { // uncommitted
		t.Fatal(err)
	}
	_, err := q.Send(at(0), Batch{Messages: []Message{text("0123456789+")}})
	wantReason(t, err, reason.QueueFull) // a byte too many
	_, err = q.Send(at(0), Batch{Messages: repeat(2, text(""))})
	wantReason(t, err, reason.QueueFull) // a message too many
	send(t, q, at(0), text("0123456789"))
	want(t, "messages, bytes", []int64{q.Len(), q.Bytes()}, []int64{5, 50})
	for _, m := range []Message{text("x"), text("")} {
		_, err = q.Send(at(0), Batch{Messages: []Message{m}})
		wantReason(t, err, reason.QueueFull)
		if err.(*reason.Error).RetryAfter == 0 {
			t.Error("no retry hint")
		}
	}
	consistent(t, q)
}

func TestBytesArePayloadHeadersAndIDs_S3(t *testing.T) {
	q := newQueue(nil)
	m := Message{Type: 1, Body: make([]byte, 100), Headers: []Header{{"key", []byte("value")}}, DedupID: "1", CorrelationID: "22", ReplyTo: "/333", ContentType: "55555"}
	send(t, q, at(0), m)
	want(t, "bytes", q.Bytes(), 100+3+5+1+2+4+5)
	ack(t, q, at(0), one(t, q, at(0)))
	want(t, "bytes", q.Bytes(), 0)
}

func TestReservedRoomIsTaken_S3(t *testing.T) {
	q := newQueue(func(s *Settings) { s.MaxMessages, s.MaxBytes = 3, 10 })
	want(t, "reserve", []bool{q.Reserve(2, 4), q.Reserve(2, 0), q.Reserve(0, 7), q.Reserve(1, 6)}, []bool{true, false, false, true})
	_, err := q.Send(at(0), Batch{Messages: []Message{text("")}})
	wantReason(t, err, reason.QueueFull)
	q.Unreserve(1, 6)
	send(t, q, at(0), text("123456"))
	want(t, "reserve", q.Reserve(0, 1), false)
}

func TestMessageArrivesAsItWasSent_S4_S5(t *testing.T) {
	q := newQueue(nil)
	in := Message{Type: 7, Priority: 9, Body: []byte("body"), Headers: []Header{{"a", []byte("1")}, {"b", nil}, {"a", []byte{0, 255}}},
		DedupID: "d", CorrelationID: "c", ReplyTo: "/r", ContentType: "t"}
	send(t, q, at(time.Second), text(""), in)
	d := receive(t, q, at(time.Minute), 1, Selector{Kind: TypeIs, Type: 7})[0]
	want(t, "message", d.Message, in)
	want(t, "sequence, time", []any{d.Sequence, d.SentAt}, []any{2, at(time.Second).Wall})
	if e := one(t, q, at(0)); len(e.Body) != 0 || e.Headers != nil {
		t.Errorf("an empty message arrives as %+v", e)
	}
}

func TestQueueCopiesWhatIsSent_S4(t *testing.T) {
	q := newQueue(nil)
	for _, m := range []Message{text("body"), {Type: 1, Body: []byte("body"), Headers: []Header{{"k", []byte("v")}}}} {
		send(t, q, at(0), m)
		clear(m.Body)
		p := peek(t, q, at(0), Ready)[0]
		clear(p.Body)
		d := one(t, q, at(0))
		want(t, "body", string(d.Body), "body")
		clear(d.Body)
		settle(t, q, nil, at(0), func(s Settlements) error { return s.Release(d.Receipt) })
		d = one(t, q, at(0))
		want(t, "body", string(d.Body), "body")
		ack(t, q, at(0), d)
	}
}

func TestSequencesRiseAndAreNeverReused_S5(t *testing.T) {
	q := newQueue(func(s *Settings) { s.MaxMessages = 2 })
	last := uint64(0)
	for range 100 {
		stored := send(t, q, at(0), text("a"), text("b"))
		want(t, "first sequence", stored.First, last+1)
		last += 2
		if _, err := q.Send(at(0), Batch{Messages: []Message{text("refused")}}); err == nil {
			t.Fatal("too many")
		}
		for _, d := range receive(t, q, at(0), 2, Selector{}) {
			ack(t, q, at(0), d)
		}
	}
}

func TestBatchIsAllOrNothing_S6(t *testing.T) {
	q := newQueue(func(s *Settings) { s.MaxMessages, s.MaxMessageSize = 3, 4 })
	for _, batch := range [][]Message{repeat(4, text("a")), {text("a"), text("large")}, {text("a"), {Type: 0}}} {
		if _, err := q.Send(at(0), Batch{Messages: batch}); err == nil {
			t.Fatal("accepted")
		}
		want(t, "what is left of it", []any{q.Len(), q.Bytes(), q.Last(), q.Stats(at(0)).Sent}, []any{0, 0, 0, 0})
	}
}

func TestUncommittedIsInvisible_S6(t *testing.T) {
	q := newQueue(nil)
	if _, err := q.Send(at(0), Batch{Messages: repeat(3, text("a"))}); err != nil {
		t.Fatal(err)
	}
	look := func() []any {
		n, _ := q.Purge(at(0), &Filter{}, 0, 100, true)
		return []any{len(peek(t, q, at(0), Ready, Delayed, Leased, Buried)), n}
	}
	want(t, "shown, purged", look(), []any{0, 0})
	want(t, "received", len(receive(t, q, at(0), 10, Selector{})), 0)
	q.Publish(2)
	want(t, "shown, purged", look(), []any{2, 2})
	want(t, "received", sequences(receive(t, q, at(0), 10, Selector{})), []uint64{1, 2})
	want(t, "published", q.Published(), 2)
	consistent(t, q)
}

func TestFullQueueRefuses_S7(t *testing.T) {
	for _, policy := range []Overflow{Reject, Block} {
		q := newQueue(func(s *Settings) { s.MaxMessages, s.Overflow = 2, policy })
		send(t, q, at(0), repeat(2, text("a"))...)
		_, err := q.Send(at(0), Batch{Messages: []Message{{Type: 1, Priority: 9}}})
		wantReason(t, err, reason.QueueFull)
		if err.(*reason.Error).RetryAfter <= 0 {
			t.Error("no hint when to retry")
		}
		_, err = q.Send(at(0), Batch{Messages: repeat(3, text("a"))})
		wantReason(t, err, reason.QueueFull)
		if err.(*reason.Error).RetryAfter != 0 {
			t.Error("a hint to retry what can never fit")
		}
	}
}

func TestDropOldestDropsOldestOfLowestPriority_S7(t *testing.T) {
	q := newQueue(func(s *Settings) { s.MaxMessages, s.Overflow = 4, DropOldest })
	send(t, q, at(0), Message{Type: 1, Priority: 5}, Message{Type: 2, Priority: 1}, Message{Type: 3, Priority: 1}, Message{Type: 1, Priority: 3})
	send(t, q, at(0), Message{Type: 9, Priority: 1}) // drops 2
	want(t, "ready", shown(peek(t, q, at(0), Ready)), []uint64{1, 4, 3, 5})
	send(t, q, at(0), Message{Type: 9, Priority: 5}, Message{Type: 9, Priority: 4}) // drops 3 and 5
	want(t, "ready", shown(peek(t, q, at(0), Ready)), []uint64{1, 6, 7, 4})
	_, err := q.Send(at(0), Batch{Messages: []Message{{Type: 9, Priority: 2}}}) // ranks below all
	wantReason(t, err, reason.QueueFull)
	_, err = q.Send(at(0), Batch{Messages: []Message{{Type: 9, Priority: 9}, {Type: 9, Priority: 2}}})
	wantReason(t, err, reason.QueueFull)
	want(t, "ready", shown(peek(t, q, at(0), Ready)), []uint64{1, 6, 7, 4})
	receive(t, q, at(0), 3, Selector{})
	_, err = q.Send(at(0), Batch{Messages: repeat(2, Message{Type: 9, Priority: 9})}) // only one is ready
	wantReason(t, err, reason.QueueFull)
	want(t, "dropped", q.Stats(at(0)).OverflowDropped, 3)
	consistent(t, q)
}

func TestDropOldestMakesRoomInBytes_S7(t *testing.T) {
	q := newQueue(func(s *Settings) { s.MaxBytes, s.Overflow = 30, DropOldest })
	send(t, q, at(0), repeat(3, text("0123456789"))...)
	send(t, q, at(0), text("01234567890"))
	want(t, "ready, bytes", []any{shown(peek(t, q, at(0), Ready)), q.Bytes()}, []any{[]uint64{3, 4}, 21})
}

// The victims of one large message may be more than one record names.
func TestManyVictimsOfOneMessageReplay_S7(t *testing.T) {
	q := newQueue(func(s *Settings) { s.MaxBytes, s.MaxMessageSize, s.Overflow = 150_000, 150_000, DropOldest })
	journal := newTape(q, at(0))
	for range 15 {
		send(t, q, at(0), repeat(10_000, text("x"))...)
	}
	send(t, q, at(0), Message{Type: 1, Body: make([]byte, 140_000)})
	want(t, "messages, dropped", []any{q.Len(), q.Stats(at(0)).OverflowDropped}, []any{10_001, 140_000})
	want(t, "replayed", dump(journal.loaded(t), journal, 0, 0), dump(q, journal, 0, 0))
	consistent(t, q)
}

func TestOverflowPolicyMayChangeBackAndForth_S7(t *testing.T) {
	q := newQueue(func(s *Settings) { s.MaxMessages, s.Overflow = 2, DropOldest })
	set := func(policy Overflow) {
		s := q.settings
		s.Overflow = policy
		q.Configure(at(0), s)
		consistent(t, q)
	}
	send(t, q, at(0), Message{Type: 1}, Message{Type: 2})
	set(Reject)
	receive(t, q, at(0), 1, Selector{Kind: TypeIs, Type: 1})
	set(DropOldest)
	send(t, q, at(0), Message{Type: 3})
	want(t, "ready", shown(peek(t, q, at(0), Ready)), []uint64{3})
}

func TestRefusedSendLeavesNothingBehind_S7(t *testing.T) {
	q := newQueue(func(s *Settings) { s.MaxMessages = 3 })
	for _, batch := range [][]Message{repeat(3, text("kept")), repeat(2, text("refused")), {text("x"), {Type: 0}}} {
		_, _ = q.Send(at(0), Batch{Messages: batch})
		for i, m := range q.rec.Messages[:cap(q.rec.Messages)] {
			if m.body != nil {
				t.Fatalf("the queue keeps hold of the caller's body %d: %q", i, m.body)
			}
		}
	}
}

func TestDuplicateIsAnsweredWithFirstSequence_S8(t *testing.T) {
	q := newQueue(nil)
	a := Message{Type: 1, DedupID: "a"}
	send(t, q, at(0), text("x"), a)
	for _, state := range []string{"ready", "leased", "consumed"} {
		stored := send(t, q, at(2*time.Minute), a)
		want(t, "answer while the first is "+state, stored, Stored{First: 3, Count: 1, SentAt: at(2 * time.Minute).Wall, Duplicates: []Duplicate{{0, 2}}})
		switch state {
		case "ready":
			receive(t, q, at(0), 1, Selector{})
			receive(t, q, at(0), 1, Selector{})
		case "leased":
			q.Purge(at(0), &Filter{States: []State{Leased}}, 0, 10, false)
		}
	}
	want(t, "stored, duplicates", []uint64{q.Stats(at(0)).Sent, q.Stats(at(0)).Duplicates}, []uint64{2, 3})
	stored := send(t, q, at(2*time.Minute+1), a) // the window is over
	want(t, "answer after the window", len(stored.Duplicates), 0)
	consistent(t, q)
}

func TestDuplicatesWithinBatch_S8(t *testing.T) {
	q := newQueue(nil)
	id := func(s string) Message { return Message{Type: 1, DedupID: s} }
	stored := send(t, q, at(0), id("a"), id("b"), id("a"), text("x"), id("b"), id("c"))
	want(t, "duplicates", stored.Duplicates, []Duplicate{{2, 1}, {4, 2}})
	want(t, "last", q.Last(), 4)
}

func TestDedupIDIsNeverForgottenEarly_S8(t *testing.T) {
	q := newQueue(func(s *Settings) { s.MaxDedupIDs = 2 })
	send(t, q, at(0), Message{Type: 1, DedupID: "a"}, Message{Type: 1, DedupID: "b"})
	c := Batch{Messages: []Message{{Type: 1, DedupID: "c"}}}
	_, err := q.Send(at(time.Minute), c)
	wantReason(t, err, reason.QuotaExceeded)
	want(t, "retry hint", err.(*reason.Error).RetryAfter, time.Minute)
	want(t, "duplicates", len(send(t, q, at(time.Minute), Message{Type: 1, DedupID: "a"}).Duplicates), 1)
	send(t, q, at(time.Minute), text("without an id"))
	if _, err := q.Send(at(2*time.Minute+1), c); err != nil {
		t.Fatal(err)
	}
}

func TestProducerBatchIsStoredOnce_S9(t *testing.T) {
	q := newQueue(nil)
	b := Batch{Messages: []Message{text("a"), {Type: 1, DedupID: "d"}}, Producer: "p", Number: 7}
	first, err := q.Send(at(0), b)
	if err != nil {
		t.Fatal(err)
	}
	q.Publish(q.Last())
	receive(t, q, at(0), 2, Selector{})
	again, err := q.Send(at(time.Second), b)
	want(t, "answer to the repeat", []any{again, err}, []any{first, nil})
	want(t, "last", q.Last(), 2)
	repeated, ok, err := q.Repeat("p", 7)
	want(t, "repeat", []any{repeated, ok, err}, []any{first, true, nil})
	for _, other := range []Batch{{Messages: b.Messages[:1], Producer: "q", Number: 7}, {Messages: b.Messages[:1], Producer: "p", Number: 6}} {
		before := q.Last()
		if _, err := q.Send(at(0), other); err != nil || q.Last() != before+1 {
			t.Fatal("another producer's or another batch was taken for a repeat", err)
		}
	}
	consistent(t, q)
}

func TestBatchOlderThanRememberedIsRefused_S9(t *testing.T) {
	q := newQueue(nil)
	for i := range uint64(limits.ProducerBatches + 10) {
		if _, err := q.Send(at(0), Batch{Messages: []Message{text("")}, Producer: "p", Number: i}); err != nil {
			t.Fatal(err)
		}
	}
	consistent(t, q)
	_, err := q.Send(at(0), Batch{Messages: []Message{text("")}, Producer: "p", Number: 9})
	wantReason(t, err, reason.StaleBatch)
	if _, ok, err := q.Repeat("p", 10); !ok || err != nil {
		t.Error("batch 10 is forgotten", err)
	}
}

func TestSilentProducersAreForgotten_S9(t *testing.T) {
	q := newQueue(func(s *Settings) { s.MaxBytes = 1 << 40 })
	b := func(i int) Batch { return Batch{Messages: []Message{text("")}, Producer: fmt.Sprint(i), Number: 1} }
	for i := range limits.Producers {
		if _, err := q.Send(at(0), b(i)); err != nil {
			t.Fatal(err)
		}
	}
	_, err := q.Send(at(limits.ProducerWindow), b(-1))
	wantReason(t, err, reason.QuotaExceeded)
	if _, err := q.Send(at(limits.ProducerWindow+1), b(-1)); err != nil {
		t.Fatalf("after the window a new producer is still refused: %v", err)
	}
	consistent(t, q)
}
