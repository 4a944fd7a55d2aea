package broker

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/quota"
	"github.com/ipcd/ipcd/internal/reason"
	"github.com/ipcd/ipcd/internal/vfs"
)

// orderSet is a descriptor set of acme.Order with an int32 field for each name, numbered from 1, and a filler.
func orderSet(filler int, names ...string) []byte {
	order := &descriptorpb.DescriptorProto{Name: proto.String("Order")}
	for i, name := range names {
		order.Field = append(order.Field, &descriptorpb.FieldDescriptorProto{
			Name: &name, Number: proto.Int32(int32(i + 1)),
			Type: descriptorpb.FieldDescriptorProto_TYPE_INT32.Enum(), Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
		})
	}
	b, err := proto.Marshal(&descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{{
		Name: proto.String("order.proto"), Package: proto.String("acme"), Syntax: proto.String("proto3"), MessageType: []*descriptorpb.DescriptorProto{order},
		Options: &descriptorpb.FileOptions{JavaPackage: proto.String(strings.Repeat("x", filler))},
	}}})
	if err != nil {
		panic(err)
	}
	return b
}

// validated binds type 7 to acme.Order.
var validated = []queue.TypeSchema{{Type: 7, Message: "acme.Order", Validate: true}}

// order is a message of type 7 with one field.
func order(field protowire.Number) queue.Message {
	return queue.Message{Type: 7, Body: protowire.AppendVarint(protowire.AppendTag(nil, field, protowire.VarintType), 1)}
}

func (w *world) register(name string, descriptors []byte, types []queue.TypeSchema) SchemaOutcome {
	w.Helper()
	out, err := w.RegisterSchema(w.ctx, alice, SchemaRequest{Queue: name, Descriptors: descriptors, Types: types})
	w.must(err)
	return out
}

func (w *world) sendOne(m queue.Message) error {
	_, err := w.Send(w.ctx, alice, SendRequest{Queue: "/q", Messages: []queue.Message{m}})
	return err
}

func TestSendsAreHeldAgainstTheSchema(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/q")
		w.must(w.sendOne(order(2)))
		w.register("/q", orderSet(0, "id"), validated)
		w.must(w.sendOne(order(1)))
		w.send("/q", "other types are plain bytes")
		err := w.sendOne(order(2))
		w.wants(err, reason.SchemaMismatch)
		if want := "/q: a body of type 7 that is no acme.Order: field 2 is not known to acme.Order"; !strings.HasSuffix(err.Error(), want[4:]) || !strings.HasPrefix(err.Error(), "/q") {
			w.Errorf("%q, want %q", err, want)
		}
		_, err = w.Send(w.ctx, alice, SendRequest{Queue: "/q", Messages: []queue.Message{order(1), order(1), order(2)}})
		w.wants(err, reason.SchemaMismatch)
		if e := err.(*reason.Error); e.Index != 2 || e.Queue != "/q" || e.Field != "body" {
			w.Errorf("index %d, queue %s, field %s", e.Index, e.Queue, e.Field)
		}
		w.register("/q", orderSet(0, "id", "more"), validated)
		w.must(w.sendOne(order(2)))
		w.register("/q", orderSet(0, "id", "more"), []queue.TypeSchema{{Type: 7, Message: "acme.Order"}})
		w.must(w.sendOne(order(3)))
		w.register("/q", orderSet(0, "id", "more"), validated)
		w.wants(w.sendOne(order(3)), reason.SchemaMismatch)
		w.must(w.RemoveSchema(w.ctx, alice, "/q"))
		w.must(w.sendOne(order(3)))
		if n := w.stats("/q").Ready; n != 6 {
			w.Errorf("%d messages, want 6", n)
		}
	})
}

func TestTransactionsAreHeldAgainstTheSchema(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/q")
		w.create("/plain")
		w.register("/q", orderSet(0, "id"), validated)
		r := TransactRequest{Producer: "p", Batch: 1, Sends: []TransactSend{
			{"/plain", []queue.Message{order(9)}}, {"/q", []queue.Message{order(1)}}, {"/q", []queue.Message{order(2)}},
		}}
		_, err := w.Transact(w.ctx, alice, r)
		w.wants(err, reason.SchemaMismatch)
		if e := err.(*reason.Error); e.Index != 2 || e.Queue != "/q" {
			w.Errorf("index %d, queue %s", e.Index, e.Queue)
		}
		if a, b := w.stats("/q").Ready, w.stats("/plain").Ready; a+b != 0 {
			w.Errorf("%d and %d messages of a transaction that was refused", a, b)
		}
		r.Sends = r.Sends[:2]
		first, err := w.Transact(w.ctx, alice, r)
		w.must(err)
		w.must(w.RemoveSchema(w.ctx, alice, "/q"))
		w.register("/q", orderSet(0), validated) // does not know the field
		again, err := w.Transact(w.ctx, alice, r)
		w.must(err)
		if fmt.Sprint(first) != fmt.Sprint(again) {
			w.Errorf("%v, repeated %v", first, again)
		}
	})
}

// A batch whose answer was lost is answered as the first time, whatever was registered since.
func TestRepeatsAreNotHeldAgainstALaterSchema(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/q")
		r := SendRequest{Queue: "/q", Messages: []queue.Message{order(2)}, Producer: "p", Batch: 1}
		first, err := w.Send(w.ctx, alice, r)
		w.must(err)
		w.register("/q", orderSet(0, "id"), validated)
		again, err := w.Send(w.ctx, alice, r)
		w.must(err)
		if fmt.Sprint(first) != fmt.Sprint(again) {
			w.Errorf("%v, repeated %v", first, again)
		}
		r.Batch = 2
		_, err = w.Send(w.ctx, alice, r)
		w.wants(err, reason.SchemaMismatch)
	})
}

func TestKernelDoorsRefuseWhatTheSchemaRefuses(t *testing.T) {
	doors := &fakeDoors{}
	inWorldWith(t, Options{Doors: doors}, func(w *world) {
		w.create("/q", func(s *queue.Settings) { s.Kernel.Mode = queue.KernelIn })
		w.register("/q", orderSet(0, "id"), validated)
		lane := doors.opened["/q"].spec.Lane
		r, err := lane.Reserve(w.ctx, 6, 100)
		w.must(err)
		refused, err := r.Send([]queue.Message{order(2), order(1), order(3), {Type: 1, Body: []byte("x")}})
		w.wants(err, reason.SchemaMismatch)
		if refused != 2 || w.stats("/q").Ready != 2 {
			w.Errorf("%d refused, %d stored, want 2 each", refused, w.stats("/q").Ready)
		}
		refused, err = r.Send([]queue.Message{order(2)})
		w.wants(err, reason.SchemaMismatch)
		if refused != 1 {
			w.Errorf("%d refused, want 1", refused)
		}
		r.Release()
		if n := w.byName["/q"].q.ReservedBytes(); n != 0 {
			w.Errorf("%d bytes stay reserved", n)
		}
	})
}

// A queue's schema counts for copies too: the send is refused, or the queue goes without, as the bind says.
func TestCopiesAreHeldAgainstTheSchemaOfWhereTheyGo(t *testing.T) {
	for _, skip := range []bool{false, true} {
		inWorld(t, func(w *world) {
			w.create("/copies")
			w.create("/q", func(s *queue.Settings) { s.Binds = []queue.Bind{{To: "/copies", Skip: skip}} })
			w.register("/copies", orderSet(0, "id"), validated)
			bad := []queue.Message{order(1), order(2)}
			_, err := w.Send(w.ctx, alice, SendRequest{Queue: "/q", Messages: bad})
			if !skip {
				w.wants(err, reason.SchemaMismatch)
				if e := err.(*reason.Error); e.Index != 1 || e.Queue != "/copies" {
					w.Errorf("index %d, queue %s", e.Index, e.Queue)
				}
				_, err = w.Transact(w.ctx, alice, TransactRequest{Sends: []TransactSend{{"/q", bad[:1]}, {"/q", bad[1:]}}})
				w.wants(err, reason.SchemaMismatch)
				if e := err.(*reason.Error); e.Index != 1 || e.Queue != "/copies" {
					w.Errorf("index %d, queue %s", e.Index, e.Queue)
				}
				bad = bad[:1]
				_, err = w.Send(w.ctx, alice, SendRequest{Queue: "/q", Messages: bad})
			}
			w.must(err)
			if a, b := w.stats("/q").Ready, w.stats("/copies").Ready; a != int64(len(bad)) || b != 1 {
				w.Errorf("%d messages and %d copies", a, b)
			}
		})
	}
}

func TestSchemasHaveVersions(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/q")
		_, _, err := w.GetSchema(w.ctx, alice, "/q", 0)
		w.wants(err, reason.SchemaNotFound)
		w.wants(w.RemoveSchema(w.ctx, alice, "/q"), reason.SchemaNotFound)
		one, two := orderSet(0, "id"), orderSet(0, "id", "note")
		if out := w.register("/q", one, validated); !out.Created || out.Schema.Version != 1 {
			w.Errorf("%+v", out)
		}
		if out := w.register("/q", one, validated); out.Created || out.Schema.Version != 1 {
			w.Errorf("the same again: %+v", out)
		}
		w.register("/q", two, validated)
		got, versions, err := w.GetSchema(w.ctx, alice, "/q", 1)
		w.must(err)
		if string(got.Descriptors) != string(one) || fmt.Sprint(versions, got.Types, got.Version) != "[1 2] [{7 acme.Order true}] 1" || got.CreatedAt == 0 {
			w.Errorf("%v %v", got, versions)
		}
		got, _, err = w.GetSchema(w.ctx, alice, "/q", 0)
		w.must(err)
		info, err := w.GetQueue(w.ctx, alice, "/q")
		w.must(err)
		if got.Version != 2 || info.Schema != 2 {
			w.Errorf("version %d, the queue says %d", got.Version, info.Schema)
		}
		_, _, err = w.GetSchema(w.ctx, alice, "/q", 3)
		w.wants(err, reason.SchemaNotFound)
		w.must(w.RemoveSchema(w.ctx, alice, "/q"))
		_, _, err = w.GetSchema(w.ctx, alice, "/q", 0)
		w.wants(err, reason.SchemaNotFound)
		if out := w.register("/q", one, validated); out.Schema.Version != 3 {
			w.Errorf("version %d after two were removed", out.Schema.Version)
		}
	})
}

func TestWhatProgramsCouldTripOverIsRefusedUnlessAllowed(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/q")
		w.register("/q", orderSet(0, "id", "note"), validated)
		r := SchemaRequest{Queue: "/q", Descriptors: orderSet(0, "id"), Types: validated, DryRun: true}
		out, err := w.RegisterSchema(w.ctx, alice, r)
		w.must(err)
		if len(out.Incompatibilities) != 1 || !strings.Contains(out.Incompatibilities[0], "field 2 (note) of acme.Order is gone") || !out.Created {
			w.Errorf("dry run: %+v", out)
		}
		r.DryRun = false
		_, err = w.RegisterSchema(w.ctx, alice, r)
		w.wants(err, reason.SchemaIncompatible)
		if got, _, _ := w.GetSchema(w.ctx, alice, "/q", 0); got.Version != 1 {
			w.Errorf("version %d after a dry run and a refusal", got.Version)
		}
		r.AllowIncompatible = true
		out, err = w.RegisterSchema(w.ctx, alice, r)
		w.must(err)
		if out.Schema.Version != 2 || len(out.Incompatibilities) != 1 {
			w.Errorf("%+v", out)
		}
		for _, bad := range []SchemaRequest{
			{Queue: "/q", Descriptors: []byte("hello"), Types: validated},
			{Queue: "/q", Descriptors: orderSet(0, "id")},
			{Queue: "/q", Descriptors: orderSet(0, "id"), Types: []queue.TypeSchema{{Type: 7, Message: "acme.Nothing"}}},
		} {
			_, err = w.RegisterSchema(w.ctx, alice, bad)
			w.wants(err, reason.SchemaInvalid)
		}
	})
}

// Two who register at the same time: the second is compared with what the first made.
func TestAVersionIsOnlyMadeAfterTheOneItWasComparedWith(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/q")
		w.register("/q", orderSet(0, "id"), validated)
		s := w.byName["/q"]
		r := SchemaRequest{Queue: "/q", Descriptors: orderSet(0, "other"), Types: validated}
		if _, done, err := s.addSchema(alice, &r, 0, nil); done || err != nil {
			w.Errorf("made although version 1 came in between, %v", err)
		}
		if got, _, _ := w.GetSchema(w.ctx, alice, "/q", 0); got.Version != 1 {
			w.Errorf("version %d", got.Version)
		}
	})
}

func TestSchemasNeedTheRightsOfWhoManages(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/q", func(s *queue.Settings) { s.Mode = 0o604 })
		w.register("/q", orderSet(0, "id"), validated)
		_, err := w.RegisterSchema(w.ctx, bob, SchemaRequest{Queue: "/q", Descriptors: []byte("never looked at"), Types: validated})
		w.wants(err, reason.AccessDenied)
		w.wants(w.RemoveSchema(w.ctx, bob, "/q"), reason.AccessDenied)
		_, _, err = w.GetSchema(w.ctx, bob, "/q", 0)
		w.must(err)
		_, err = w.UpdateQueue(w.ctx, alice, "/q", func(s *queue.Settings) error { s.Mode = 0o600; return nil })
		w.must(err)
		_, _, err = w.GetSchema(w.ctx, bob, "/q", 0)
		w.wants(err, reason.AccessDenied)
		_, err = w.RegisterSchema(w.ctx, alice, SchemaRequest{Queue: "/none", Descriptors: orderSet(0, "id"), Types: validated})
		w.wants(err, reason.QueueNotFound)
	})
}

func TestSchemasAreChargedToTheQueuesOwner(t *testing.T) {
	inFreshWorlds(t, quotas(alice, quota.Limits{quota.QueuedBytes: 10_000}), func(w *world) {
		w.create("/q")
		w.register("/q", orderSet(6000, "id"), validated)
		_, err := w.RegisterSchema(w.ctx, alice, SchemaRequest{Queue: "/q", Descriptors: orderSet(6001, "id"), Types: validated})
		w.wants(err, reason.QuotaExceeded)
		checkCharges(t, w.Broker)
		w.must(w.RemoveSchema(w.ctx, alice, "/q"))
		w.register("/q", orderSet(6001, "id"), validated)
		checkCharges(t, w.Broker)
		_, err = w.DeleteQueue(w.ctx, alice, "/q")
		w.must(err)
		if used := w.quotas.Account(identity.User(alice.UID)).Used(quota.QueuedBytes); used != 0 {
			w.Errorf("%d bytes stay charged", used)
		}
	})
}

// Schemas outlive restarts and the segments that they were written in, of memory queues too.
func TestSchemasSurviveCompactionAndRestarts(t *testing.T) {
	fs := vfs.NewCrash(rand.New(rand.NewPCG(1, 2)))
	open := func() *world {
		b, err := Open(Options{Journal: &JournalOptions{FS: fs, Dir: "/state/journal", SegmentBytes: limits.SegmentBytesMin}})
		if err != nil {
			t.Fatal(err)
		}
		return &world{t, b, t.Context()}
	}
	w := open()
	w.create("/q")
	w.create("/memory", func(s *queue.Settings) { s.Durability = queue.Memory })
	w.create("/churn")
	for _, name := range []string{"/q", "/memory"} {
		w.register(name, orderSet(50_000, "id"), validated)
		w.must(w.RemoveSchema(w.ctx, alice, name))
		for i := range 18 {
			w.register(name, orderSet(20_000+i, "id"), validated)
		}
	}
	share := 0.0 // else compaction would copy such a segment again and again
	for _, segment := range w.journal.Segments() {
		if !segment.Sealed { // it is still being written
			continue
		}
		live, err := w.compactor.liveShare(segment)
		w.must(err)
		share = max(share, live)
	}
	if share < 0.5 {
		t.Errorf("segments full of schemas are taken for live by %.2f", share)
	}
	_, err := w.RegisterSchema(w.ctx, alice, SchemaRequest{Queue: "/q", Descriptors: orderSet(limits.SegmentBytesMin, "id"), Types: validated})
	w.wants(err, reason.SchemaInvalid)
	for range 3 {
		before := w.compactor.freed.Load()
		body := strings.Repeat("x", 20_000)
		for i := 0; w.compactor.freed.Load() < before+10; i++ {
			if i > 10_000 {
				t.Fatalf("only %d segments were given up", w.compactor.freed.Load()-before)
			}
			w.send("/churn", body)
			w.must(w.settle(w.receiveOne("/churn"), Verdict{Outcome: Ack}))
		}
		w.Close()
		w = open()
		for _, name := range []string{"/q", "/memory"} {
			got, versions, err := w.GetSchema(w.ctx, alice, name, 0)
			w.must(err)
			if len(versions) != limits.SchemaVersions || versions[0] != 4 || got.Version != 19 || string(got.Descriptors) != string(orderSet(20_017, "id")) {
				t.Fatalf("%s: version %d, kept %v", name, got.Version, versions)
			}
			_, err = w.Send(w.ctx, alice, SendRequest{Queue: name, Messages: []queue.Message{order(2)}})
			w.wants(err, reason.SchemaMismatch)
		}
		checkCharges(t, w.Broker)
	}
	w.must(w.RemoveSchema(w.ctx, alice, "/q"))
	w.Close()
	w = open()
	defer w.Close()
	if out := w.register("/q", orderSet(0, "id"), validated); out.Schema.Version != 20 {
		t.Errorf("version %d after a restart, want 20", out.Schema.Version)
	}
}

// What a schema that can not be read any more would have refused is not let in.
func TestSendsAreRefusedWhereTheSchemaCanNotBeUsed(t *testing.T) {
	q := queue.New(1, "/q", 1, 1, queue.Default(alice.UID, alice.GID))
	q.AddSchema(queue.Instant{}, []byte("of another release"), validated)
	b := New(Options{})
	defer b.Close()
	s := newServed(b, q, "/q", 1)
	if err := s.checkBodies([]queue.Message{{Type: 1}, order(1)}); reason.Of(err) != reason.SchemaMismatch || err.(*reason.Error).Index != 1 {
		t.Errorf("%v", err)
	}
}

// What a temporary queue has ends with it, and the journal knows nothing of it.
func TestTemporaryQueuesMayHaveASchema(t *testing.T) {
	inWorld(t, func(w *world) {
		info, end, err := w.OpenTemporary(w.ctx, alice, func(*queue.Settings) error { return nil })
		w.must(err)
		defer end()
		w.register(info.Name, orderSet(0, "id"), validated)
		_, err = w.Send(w.ctx, alice, SendRequest{Queue: info.Name, Messages: []queue.Message{order(2)}})
		w.wants(err, reason.SchemaMismatch)
		s := w.byName[info.Name]
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.last != 0 || s.frame != nil {
			w.Errorf("it is in frame %d of the journal", s.last)
		}
	})
}

func BenchmarkCheckBodiesWithoutSchema(b *testing.B) {
	s := new(served)
	m := []queue.Message{order(1)}
	for b.Loop() {
		_ = s.checkBodies(m)
	}
}
