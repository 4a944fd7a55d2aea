package broker

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/reason"
)

func heapNow() int64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return int64(s.HeapAlloc)
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

// What a tap that nobody reads holds, and what is counted of it.
func TestTapsHoldNoMoreThanIsCounted(t *testing.T) {
	w := &world{t, New(Options{}), t.Context()}
	defer w.Close()
	w.create("/q")
	const taps = 16
	for range taps {
		tap, err := w.Tap(w.ctx, alice, TapRequest{Queue: "/q"})
		w.must(err)
		defer tap.Close()
	}
	var headers []queue.Header
	for range 64 {
		headers = append(headers, queue.Header{Key: "k"})
	}
	all := make([]queue.Message, 4096)
	for i := range all {
		all[i] = queue.Message{Type: 1, Headers: headers}
	}
	before := heapNow()
	_, err := w.Send(w.ctx, alice, SendRequest{Queue: "/q", Messages: all})
	w.must(err)
	grew := heapNow() - before
	counted := w.tapped.all[alice.Principal()].bytes.Load()
	if grew > 4*counted {
		t.Errorf("%d taps hold %d KiB each, counted are %d KiB each", taps, grew/taps>>10, counted/taps>>10)
	}
}

// What one send to many queues takes while it is decided, in time and memory, is bounded.
func TestFanOutOfManyMessagesToManyQueuesIsRefused(t *testing.T) {
	w := &world{t, New(Options{}), t.Context()}
	defer w.Close()
	w.create("/src")
	for i := range 60 {
		to := fmt.Sprintf("/to%d", i)
		w.create(to)
		w.bind("/src", to)
	}
	all := make([]queue.Message, 16384)
	for i := range all {
		all[i] = queue.Message{Type: 1}
	}
	_, err := w.Send(w.ctx, alice, SendRequest{Queue: "/src", Messages: all})
	w.wants(err, reason.MessageTooLarge)
	_, err = w.Send(w.ctx, alice, SendRequest{Queue: "/src", Messages: all[:1000]})
	w.must(err)
}
