package checker

import (
	"slices"
	"testing"
)

// script is a history of one journal queue /q, one ordered one /o and one volatile one /m.
type script struct {
	*Checker
}

func newScript() script {
	c := New()
	c.Queue("/q", QueueRules{Settled: true})
	c.Queue("/o", QueueRules{Ordered: true, Settled: true})
	c.Queue("/m", QueueRules{Volatile: true})
	return script{c}
}

// send sends messages to a queue and has them acked from a sequence on.
func (s script) send(queue string, sequence uint64, ids ...uint64) {
	b := s.Send(messages(queue, ids...)...)
	outcomes := make([]Outcome, len(ids))
	for i := range outcomes {
		outcomes[i].Sequence = sequence + uint64(i)
	}
	b.Acked(outcomes)
}

func messages(queue string, ids ...uint64) []Message {
	all := make([]Message, len(ids))
	for i, id := range ids {
		all[i] = Message{ID: id, Queue: queue, Type: 1}
	}
	return all
}

// get delivers a message that was asked for just now.
func (s script) get(queue string, sequence, id uint64, attempts ...int) *Delivery {
	r := Received{ID: id, Queue: queue, Sequence: sequence, Type: 1, Since: s.Mark()}
	if len(attempts) > 0 {
		r.Attempts = attempts[0]
	}
	return s.Delivered(r)
}

// consume delivers a message and has its ack confirmed.
func (s script) consume(queue string, sequence, id uint64) {
	s.get(queue, sequence, id).Settle(Ack).Confirmed()
}

func (s script) crash() {
	s.Crashing()
	s.Crashed()
}

// kinds are the kinds of what Check finds.
func (s script) kinds() []Kind {
	var all []Kind
	for _, v := range s.Check(Counts{}) {
		if !slices.Contains(all, v.Kind) {
			all = append(all, v.Kind)
		}
	}
	return all
}

// busy is enough of a good history, in a queue that no test looks at, for Check not to call it idle.
func (s script) busy() {
	s.send("/busy", 1, 1<<40)
	s.consume("/busy", 1, 1<<40)
}

func TestGoodHistoriesPass(t *testing.T) {
	for name, play := range map[string]func(s script){
		"sent, nacked, acked": func(s script) {
			s.send("/q", 1, 1)
			s.get("/q", 1, 1).Settle(Nack).Confirmed()
			s.get("/q", 1, 1, 1).Settle(Ack).Confirmed()
		},
		"left at the end": func(s script) {
			s.send("/q", 1, 1)
			s.Left("/q", 1, 1)
		},
		"unknown and never there": func(s script) { s.Send(messages("/q", 1, 2)...).Unknown() },
		"unknown and all there": func(s script) {
			s.Send(messages("/q", 1, 2)...).Unknown()
			s.consume("/q", 1, 1)
			s.consume("/q", 2, 2)
		},
		"refused and never there": func(s script) { s.Send(messages("/q", 1)...).Refused() },
		"leased, crashed, leased again": func(s script) {
			s.send("/q", 1, 1)
			d := s.get("/q", 1, 1)
			s.crash()
			d.Settle(Ack).Stale()
			s.consume("/q", 1, 1)
		},
		"an ack that a crash swallowed, and was done": func(s script) {
			s.send("/q", 1, 1)
			st := s.get("/q", 1, 1).Settle(Ack)
			s.crash()
			st.Unknown()
		},
		"an ack that a crash swallowed, and was not done": func(s script) {
			s.send("/q", 1, 1)
			st := s.get("/q", 1, 1).Settle(Ack)
			s.crash()
			st.Unknown()
			s.consume("/q", 1, 1)
		},
		"a delivery that is recorded late": func(s script) {
			s.send("/q", 1, 1)
			since := s.Mark()
			s.crash()
			s.consume("/q", 1, 1)
			s.Delivered(Received{ID: 1, Queue: "/q", Sequence: 1, Type: 1, Since: since})
		},
		"a volatile queue after a crash": func(s script) {
			s.send("/m", 1, 1)
			s.crash()
			s.send("/m", 2, 2)
			s.consume("/m", 2, 2)
		},
		"sent again after an unknown outcome, and stored twice": func(s script) {
			s.Send(messages("/q", 1)...).Unknown()
			s.send("/q", 2, 1)
			s.consume("/q", 1, 1)
			s.consume("/q", 2, 1)
		},
		"a dedup id": func(s script) {
			m := Message{ID: 1, Queue: "/q", Type: 1, DedupID: "x"}
			s.Send(m).Unknown()
			m.ID = 2
			s.Send(m).Acked([]Outcome{{Sequence: 1, Duplicate: true}})
			s.consume("/q", 1, 1)
		},
		"order of each type and priority": func(s script) {
			s.send("/o", 1, 1)
			s.Send(Message{ID: 2, Queue: "/o", Type: 1, Priority: 5}).Acked([]Outcome{{Sequence: 2}})
			s.send("/o", 3, 3)
			s.Delivered(Received{ID: 2, Queue: "/o", Sequence: 2, Type: 1, Priority: 5, Since: s.Mark()}).Settle(Ack).Confirmed()
			s.get("/o", 1, 1).Settle(Nack).Confirmed()
			s.consume("/o", 3, 3)
			s.get("/o", 1, 1, 1).Settle(Ack).Confirmed()
		},
		"a transaction": func(s script) {
			s.send("/q", 1, 1)
			s.Transact(messages("/o", 2), []*Delivery{s.get("/q", 1, 1)}).Acked([]Outcome{{Sequence: 1}})
			s.consume("/o", 1, 2)
		},
		"a transaction that was done, unknown": func(s script) {
			s.send("/q", 1, 1)
			s.Transact(messages("/o", 2), []*Delivery{s.get("/q", 1, 1)}).Unknown()
			s.consume("/o", 1, 2)
		},
		"a transaction that was not done, unknown, and another": func(s script) {
			s.send("/q", 1, 1)
			d := s.get("/q", 1, 1)
			s.crash()
			s.Transact(messages("/o", 2), []*Delivery{d}).Unknown()
			s.Transact(messages("/o", 3), []*Delivery{s.get("/q", 1, 1)}).Acked([]Outcome{{Sequence: 1}})
			s.consume("/o", 1, 3)
		},
		"a transaction of acks alone, unknown": func(s script) {
			s.send("/q", 1, 1)
			s.Transact(nil, []*Delivery{s.get("/q", 1, 1)}).Unknown()
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScript()
			s.busy()
			play(s)
			if found := s.Check(Counts{}); len(found) > 0 {
				t.Errorf("found %v", found)
			}
		})
	}
}

func TestEveryViolationIsFound(t *testing.T) {
	for name, c := range map[string]struct {
		play func(s script)
		want Kind
	}{
		"an acked message that is gone": {func(s script) { s.send("/q", 1, 1) }, Lost},
		"an acked message that was delivered, but not acked": {func(s script) {
			s.send("/q", 1, 1)
			s.get("/q", 1, 1)
			s.crash()
		}, Lost},
		"an acked message whose ack was refused": {func(s script) {
			s.send("/q", 1, 1)
			d := s.get("/q", 1, 1)
			s.crash()
			d.Settle(Ack).Stale()
		}, Lost},
		"a duplicate of nothing": {func(s script) {
			s.Send(Message{ID: 1, Queue: "/q", DedupID: "x"}).Acked([]Outcome{{Sequence: 7, Duplicate: true}})
		}, Lost},
		"a message of an unknown send that vanished after its delivery": {func(s script) {
			s.Send(messages("/q", 1)...).Unknown()
			s.get("/q", 1, 1)
		}, Lost},
		"a volatile message that is gone without a crash": {func(s script) { s.send("/m", 1, 1) }, Lost},

		"a message out of nowhere":   {func(s script) { s.get("/q", 1, 1) }, Unexpected},
		"a message in another queue": {func(s script) { s.send("/q", 1, 1); s.get("/o", 1, 1); s.Left("/q", 1, 1) }, Unexpected},
		"a refused message that comes": {func(s script) {
			s.Send(messages("/q", 1)...).Refused()
			s.consume("/q", 1, 1)
		}, Unexpected},
		"a message that came and then was refused": {func(s script) {
			b := s.Send(messages("/q", 1)...)
			s.consume("/q", 1, 1)
			b.Refused()
		}, Unexpected},
		"a message of another type": {func(s script) {
			s.send("/q", 1, 1)
			s.Delivered(Received{ID: 1, Queue: "/q", Sequence: 1, Type: 2}).Settle(Ack).Confirmed()
		}, Unexpected},

		"a message after its ack": {func(s script) { s.send("/q", 1, 1); s.consume("/q", 1, 1); s.get("/q", 1, 1) }, Redelivered},
		"a message after its ack and a crash": {func(s script) {
			s.send("/q", 1, 1)
			s.consume("/q", 1, 1)
			s.crash()
			s.get("/q", 1, 1)
		}, Redelivered},
		"a message after its ack, on a stream that is older": {func(s script) {
			s.send("/q", 1, 1)
			since := s.Mark()
			s.consume("/q", 1, 1)
			s.Delivered(Received{ID: 1, Queue: "/q", Sequence: 1, Type: 1, Since: since})
		}, Redelivered},
		"a message after its ack, on a stream opened during the crash": {func(s script) {
			s.send("/q", 1, 1)
			s.Crashing()
			since := s.Broken()
			s.Crashed()
			s.consume("/q", 1, 1)
			s.Delivered(Received{ID: 1, Queue: "/q", Sequence: 1, Type: 1, Since: since})
		}, Redelivered},
		"an acked message that is left": {func(s script) {
			s.send("/q", 1, 1)
			s.consume("/q", 1, 1)
			s.Left("/q", 1, 1)
		}, Redelivered},

		"a message under two sequences": {func(s script) {
			s.send("/q", 1, 1)
			s.consume("/q", 1, 1)
			s.consume("/q", 2, 1)
		}, Duplicated},
		"a later message first": {func(s script) {
			s.send("/o", 1, 1, 2)
			s.consume("/o", 2, 2)
			s.consume("/o", 1, 1)
		}, OutOfOrder},

		"two messages of one sequence": {func(s script) {
			s.send("/q", 1, 1)
			s.consume("/q", 1, 1)
			s.Send(messages("/q", 2)...).Unknown()
			s.consume("/q", 1, 2)
		}, Reused},
		"a sequence that does not rise": {func(s script) {
			s.send("/q", 5, 5)
			s.consume("/q", 5, 5)
			s.send("/q", 4, 4)
			s.consume("/q", 4, 4)
		}, Reused},
		"a volatile queue that begins again": {func(s script) {
			s.send("/m", 1, 1)
			s.crash()
			s.send("/m", 1, 2)
			s.consume("/m", 1, 2)
		}, Reused},

		"half of an unknown batch": {func(s script) {
			s.Send(messages("/q", 1, 2)...).Unknown()
			s.consume("/q", 1, 1)
		}, Partial},
		"half of a batch that was never answered": {func(s script) {
			s.Send(messages("/q", 1, 2)...)
			s.consume("/q", 1, 1)
		}, Partial},
		"an answer about fewer": {func(s script) { s.Send(messages("/q", 1, 2)...).Acked([]Outcome{{Sequence: 1}}) }, Partial},
		"a transaction that acked and did not send": {func(s script) {
			s.send("/q", 1, 1)
			s.Transact(messages("/o", 2), []*Delivery{s.get("/q", 1, 1)}).Unknown()
		}, Partial},
		"a transaction that sent and did not ack": {func(s script) {
			s.send("/q", 1, 1)
			s.Transact(messages("/o", 2), []*Delivery{s.get("/q", 1, 1)}).Unknown()
			s.consume("/o", 1, 2)
			s.Left("/q", 1, 1)
		}, Partial},
		"two transactions for one source": {func(s script) {
			s.send("/q", 1, 1)
			s.Transact(messages("/o", 2), []*Delivery{s.get("/q", 1, 1)}).Unknown()
			s.crash()
			s.Transact(messages("/o", 3), []*Delivery{s.get("/q", 1, 1)}).Acked([]Outcome{{Sequence: 2}})
			s.consume("/o", 1, 2)
			s.consume("/o", 2, 3)
		}, Partial},

		"a nack that is not counted": {func(s script) {
			s.send("/q", 1, 1)
			s.get("/q", 1, 1).Settle(Nack).Confirmed()
			s.crash()
			s.consume("/q", 1, 1)
		}, AttemptsFell},
		"a crash that is counted": {func(s script) {
			s.send("/q", 1, 1)
			s.get("/q", 1, 1)
			s.crash()
			s.get("/q", 1, 1, 1).Settle(Ack).Confirmed()
		}, AttemptsRose},

		"a dedup id twice": {func(s script) {
			for id := range uint64(2) {
				s.Send(Message{ID: id, Queue: "/q", Type: 1, DedupID: "x"}).Acked([]Outcome{{Sequence: id + 1}})
				s.consume("/q", id+1, id)
			}
		}, DedupBroken},
		"a duplicate of something else": {func(s script) {
			s.Send(Message{ID: 1, Queue: "/q", Type: 1, DedupID: "x"}).Acked([]Outcome{{Sequence: 1}})
			s.consume("/q", 1, 1)
			s.Send(Message{ID: 2, Queue: "/q", Type: 1, DedupID: "x"}).Acked([]Outcome{{Sequence: 3, Duplicate: true}})
		}, DedupBroken},
		"a duplicate without an id": {func(s script) {
			s.Send(messages("/q", 1)...).Acked([]Outcome{{Sequence: 1, Duplicate: true}})
		}, DedupBroken},

		"two leases": {func(s script) {
			s.send("/q", 1, 1)
			s.get("/q", 1, 1)
			s.consume("/q", 1, 1)
		}, LeasedTwice},
		"two acks": {func(s script) {
			s.send("/q", 1, 1)
			d := s.get("/q", 1, 1)
			d.Settle(Ack).Confirmed()
			d.Settle(Ack).Confirmed()
		}, AckedTwice},
		"a receipt that does not hold": {func(s script) {
			s.send("/q", 1, 1)
			s.get("/q", 1, 1).Settle(Release).Stale()
			s.consume("/q", 1, 1)
		}, ReceiptRefused},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScript()
			s.busy()
			c.play(s)
			if found := s.kinds(); !slices.Equal(found, []Kind{c.want}) {
				t.Errorf("found %v, want %q alone", s.Check(Counts{}), c.want)
			}
		})
	}
}

func TestIdleRunsDoNotPass(t *testing.T) {
	s := newScript()
	if found := s.kinds(); !slices.Equal(found, []Kind{TooLittle}) {
		t.Errorf("an empty history: %v", found)
	}
	enough := Counts{Batches: 2, Acked: 1, Refused: 1, Delivered: 1, Settled: 1, Consumed: 1}
	s = newScript()
	s.busy()
	s.Send(messages("/q", 1)...).Refused()
	if found := s.Check(enough); len(found) > 0 {
		t.Errorf("a history of %+v: %v", s.Counts(), found)
	}
	for _, more := range []func(*Counts){
		func(c *Counts) { c.Batches++ }, func(c *Counts) { c.Acked++ }, func(c *Counts) { c.Refused++ },
		func(c *Counts) { c.Unknown++ }, func(c *Counts) { c.Duplicates++ }, func(c *Counts) { c.Delivered++ },
		func(c *Counts) { c.Redelivered++ }, func(c *Counts) { c.Settled++ }, func(c *Counts) { c.Stale++ },
		func(c *Counts) { c.Consumed++ }, func(c *Counts) { c.Transactions++ }, func(c *Counts) { c.Crashes++ },
	} {
		s := newScript()
		s.busy()
		s.Send(messages("/q", 1)...).Refused()
		least := enough
		more(&least)
		if found := s.kinds(); len(found) > 0 {
			t.Fatalf("found %v", found)
		}
		if found := s.Check(least); len(found) != 1 || found[0].Kind != TooLittle {
			t.Errorf("asked for %+v: %v", least, found)
		}
	}
}

func TestViolationsAreBounded(t *testing.T) {
	s := newScript()
	s.busy()
	for i := range uint64(10 * foundMost) {
		s.get("/q", i+1, i)
	}
	if !s.Broke() {
		t.Error("a broken history is not known as such")
	}
	if found := s.Check(Counts{}); len(found) > foundMost+1 {
		t.Errorf("%d violations are kept", len(found))
	}
}
