package broker

// Nothing that callers ask for may become more than the journal takes at once: that would end the daemon.

import (
	"bytes"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/reason"
)

func (w *world) alive(what string) {
	w.Helper()
	if err := w.Failure(); err != nil {
		w.Fatalf("%s ended the daemon: %v", what, err)
	}
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

// A transaction whose acks make room for a blocked sender: both are one frame.
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
