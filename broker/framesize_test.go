package broker

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/reason"
)

// Nothing that callers ask for may become more than the journal takes at once: that would end the daemon.

// alive fails if something has ended the broker.
func (w *world) alive(what string) {
	w.Helper()
	if err := w.Failure(); err != nil {
		w.Fatalf("%s ended the daemon: %v", what, err)
	}
}

// Default segment size: reasons stand in the metadata, which counts twice.
func TestImportedReasonsFitAFrame(t *testing.T) {
	onDisk(t, func(d *disk) {
		d.o.Journal.SegmentBytes = 32 << 20
		w := d.start()
		defer w.Close()
		w.create("/q")
		all := make([]queue.Peeked, 16384)
		for i := range all {
			all[i] = queue.Peeked{State: queue.Buried, BuryReason: fmt.Sprintf("%1024d", i)}
			all[i].Type = 1
		}
		_, err := w.Import(w.ctx, alice, ImportRequest{Queue: "/q", Messages: all})
		w.alive("an import")
		w.wants(err, reason.MessageTooLarge)
	})
}

// Default segment size: a schema's record is metadata too.
func TestSchemaFitsAFrame(t *testing.T) {
	onDisk(t, func(d *disk) {
		d.o.Journal.SegmentBytes = 32 << 20
		w := d.start()
		defer w.Close()
		w.create("/q")
		name := strings.Repeat("M", 20<<10)
		b, err := proto.Marshal(&descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{{
			Name: proto.String("a"), Syntax: proto.String("proto3"), MessageType: []*descriptorpb.DescriptorProto{{Name: &name}}}}})
		w.must(err)
		var types []queue.TypeSchema
		for i := range 1024 {
			types = append(types, queue.TypeSchema{Type: int64(i + 1), Message: name})
		}
		_, err = w.RegisterSchema(w.ctx, alice, SchemaRequest{Queue: "/q", Descriptors: b, Types: types})
		w.alive("a schema")
		w.wants(err, reason.SchemaInvalid)
	})
}

// Default segment size: one Settle of 65536 buries with reasons of their own.
func TestBuryReasonsFitFrames(t *testing.T) {
	onDisk(t, func(d *disk) {
		d.o.Journal.SegmentBytes = 32 << 20
		w := d.start()
		defer w.Close()
		w.create("/q")
		var all []Settlement
		for range 4 {
			_, err := w.Send(w.ctx, alice, SendRequest{Queue: "/q", Messages: func() (m []queue.Message) {
				for range 16384 {
					m = append(m, queue.Message{Type: 1})
				}
				return m
			}()})
			w.must(err)
			for _, got := range w.receive("/q", 16384) {
				all = append(all, Settlement{Receipt: got.Receipt, Verdict: Verdict{Outcome: Bury, Reason: fmt.Sprintf("%256d", len(all))}})
			}
		}
		_, err := w.Settle(w.ctx, alice, all)
		w.alive(fmt.Sprintf("a settle of %d", len(all)))
		t.Log(err)
	})
}

// Default segment size: dead letters whose bytes are in their headers.
func TestDeadLettersWithHeadersFitFrames(t *testing.T) {
	onDisk(t, func(d *disk) {
		d.o.Journal.SegmentBytes = 32 << 20
		w := d.start()
		defer w.Close()
		w.create("/dead")
		w.create("/q", func(s *queue.Settings) { s.DeadLetter = "/dead"; s.MaxAttempts = 1 })
		var all []Settlement
		for range 2 {
			m := make([]queue.Message, 300)
			for i := range m {
				m[i] = queue.Message{Type: 1, Headers: []queue.Header{{Key: "k", Value: make([]byte, 60<<10)}}}
			}
			_, err := w.Send(w.ctx, alice, SendRequest{Queue: "/q", Messages: m})
			w.must(err)
			for _, got := range w.receive("/q", 300) {
				all = append(all, Settlement{Receipt: got.Receipt, Verdict: Verdict{Outcome: Nack}})
			}
		}
		_, err := w.Settle(w.ctx, alice, all)
		w.alive(fmt.Sprintf("a settle of %d", len(all)))
		t.Log(err, w.stats("/dead").Ready)
	})
}

// A send with many small headers, whose copies go to seven journal queues, with the default segment size.
func TestCopiesWithManyHeadersFitAFrame(t *testing.T) {
	onDisk(t, func(d *disk) {
		d.o.Journal.SegmentBytes = 32 << 20
		w := d.start()
		defer w.Close()
		w.create("/src")
		for i := range 7 {
			to := fmt.Sprintf("/to%d", i)
			w.create(to)
			w.bind("/src", to)
		}
		var all []queue.Message
		for i := range 15900 {
			m := queue.Message{Type: 1<<62 + int64(i), Priority: 32767, DedupID: fmt.Sprint(i), Delay: time.Hour, TTL: 2 * time.Hour}
			for range 64 {
				m.Headers = append(m.Headers, queue.Header{Key: "k"})
			}
			all = append(all, m)
		}
		_, err := w.Send(w.ctx, alice, SendRequest{Queue: "/src", Messages: all})
		w.alive("a send with copies")
		w.wants(err, reason.MessageTooLarge)
	})
}

// A transaction whose acks make room for a blocked sender: together they would be too much.
func TestTransactionAndWhomItMakesRoomForAreFramesOfTheirOwn(t *testing.T) {
	onDisk(t, func(d *disk) {
		d.o.Journal.SegmentBytes = 32 << 20
		w := d.start()
		defer w.Close()
		big := func(s *queue.Settings) { s.MaxMessageSize = 16 << 20 }
		w.create("/a", big, func(s *queue.Settings) { s.Overflow = queue.Block; s.MaxMessages = 1 })
		w.create("/b", big)
		w.send("/a", "x")
		got := w.receive("/a", 1)
		go func() {
			_, err := w.Send(w.ctx, alice, SendRequest{Queue: "/a", Wait: time.Minute, Messages: []queue.Message{{Type: 1, Body: bytes.Repeat([]byte("y"), 16<<20)}}})
			if err != nil {
				t.Error("the blocked sender:", err)
			}
		}()
		synctest.Wait()
		half := bytes.Repeat([]byte("z"), 10<<20)
		_, err := w.Transact(w.ctx, alice, TransactRequest{Acks: receipts(got), Sends: []TransactSend{{Queue: "/b", Messages: []queue.Message{{Type: 1, Body: half}, {Type: 1, Body: half}}}}})
		w.alive("a transaction")
		w.must(err)
		synctest.Wait()
		w.counts("/a", 1, 0, 0, 0)
		w.counts("/b", 2, 0, 0, 0)
	})
}

// One message pushes out many small ones (256 KiB segments; with 32 MiB it takes about 8 million).
func TestManyVictimsFitFrames(t *testing.T) {
	onDisk(t, func(d *disk) {
		d.o.Journal.SegmentBytes = 256 << 10
		w := d.start()
		defer w.Close()
		w.create("/q", func(s *queue.Settings) {
			s.Overflow, s.MaxBytes, s.MaxMessageSize = queue.DropOldest, 100<<10, 1<<20
		})
		for i := 0; i < 100<<10; i += 512 {
			var all []queue.Message
			for j := range 512 {
				all = append(all, queue.Message{Type: 1, Priority: uint16(j % 2), Body: []byte("x")})
			}
			_, err := w.Send(w.ctx, alice, SendRequest{Queue: "/q", Messages: all})
			w.must(err)
		}
		_, err := w.Send(w.ctx, alice, SendRequest{Queue: "/q", Messages: []queue.Message{{Type: 1, Priority: 2, Body: make([]byte, 100<<10)}}})
		w.alive("a send that drops")
		w.must(err)
		w.counts("/q", 1, 0, 0, 0)
	})
}

// Settings with large binds (256 KiB segments, the least that segment_size allows).
func TestSettingsThatFitNoFrameAreRefused(t *testing.T) {
	onDisk(t, func(d *disk) {
		d.o.Journal.SegmentBytes = 256 << 10
		w := d.start()
		defer w.Close()
		w.create("/src")
		set := queue.Selector{Kind: queue.TypeIn}
		for i := range 1024 {
			set.Types = append(set.Types, 1<<62+int64(i)*1e9)
		}
		for i := range 64 {
			to := fmt.Sprintf("/to%d", i)
			w.create(to)
			_, err := w.Bind(w.ctx, alice, "/src", queue.Bind{To: to, Selector: set})
			w.alive(fmt.Sprintf("bind %d", i))
			if i > 8 && err != nil {
				w.wants(err, reason.InvalidArgument)
				return
			}
			w.must(err)
		}
		t.Error("settings of any size are taken")
	})
}
