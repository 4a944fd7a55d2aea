package broker

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/reason"
	"github.com/ipcd/ipcd/internal/vfs"
)

var goldenWrite = flag.Bool("golden.write", false, "write the golden journal of the format of now, if there is none")

// goldenFormat names the format that is written now. A change of the format takes a new one, and the
// directories of those before stay.
const goldenFormat = "2"

// TestGoldenJournalsStayReadable opens a journal of every format that was ever released.
func TestGoldenJournalsStayReadable(t *testing.T) {
	current := filepath.Join("testdata", "golden", goldenFormat)
	if _, err := os.Stat(current); *goldenWrite && os.IsNotExist(err) {
		writeGolden(t, current)
	}
	formats, err := filepath.Glob(filepath.Join("testdata", "golden", "*"))
	if err != nil || !slices.Contains(formats, current) {
		t.Fatalf("%v, %v: the format of now is missing; -golden.write writes it", formats, err)
	}
	for _, dir := range formats {
		t.Run(filepath.Base(dir), func(t *testing.T) { readGolden(t, dir) })
	}
}

func openGolden(t *testing.T, dir string) *world {
	b, err := Open(Options{Journal: &JournalOptions{FS: vfs.OS{}, Dir: dir, SegmentBytes: 64 << 10}})
	if err != nil {
		t.Fatal(err)
	}
	return &world{t, b, t.Context()}
}

// writeGolden makes a journal with something of everything, and keeps its files that are in use.
func writeGolden(t *testing.T, to string) {
	dir := t.TempDir()
	w := openGolden(t, dir)
	w.create("/dead")
	w.create("/memory", func(s *queue.Settings) { s.Durability = queue.Memory })
	w.create("/gone")
	w.create("/all", func(s *queue.Settings) {
		s.TypeNames, s.MaxAttempts, s.DeadLetter, s.DedupWindow, s.Lease = map[string]int64{"created": 7}, 2, "/dead", 7*24*time.Hour, time.Hour
	})
	_, err := w.Send(w.ctx, alice, SendRequest{Queue: "/all", Producer: "p", Batch: 1, Messages: []queue.Message{
		{Type: 1, Priority: 9, Body: []byte("dies")},
		{Type: 1, Priority: 8, Body: []byte("acked")},
		{Type: 1, Priority: 7, Body: []byte("buried")},
		{Type: 1, Priority: 6, Body: []byte("tried once")},
		{Type: 7, Body: []byte("headers"), Headers: []queue.Header{{Key: "k", Value: []byte("v")}}, CorrelationID: "c", ReplyTo: "/r", ContentType: "t", DedupID: "id"},
		{Type: 1, Body: []byte("delayed"), Delay: limitsDelay},
		{Type: 1, Body: []byte("mortal"), TTL: limitsDelay},
		{Type: 1, Body: nil},
	}})
	w.must(err)
	for _, v := range []Verdict{{Outcome: Nack, Reason: "no"}, {Outcome: Nack, Reason: "no again"}, {Outcome: Ack}, {Outcome: Bury, Reason: "why"}, {Outcome: Nack}} {
		w.must(w.settle(w.receiveOne("/all"), v))
	}
	w.send("/memory", "lost")
	_, err = w.DeleteQueue(w.ctx, alice, "/gone")
	w.must(err)
	_, err = w.PauseQueue(w.ctx, alice, "/dead", true)
	w.must(err)
	r := TransactRequest{Sends: []TransactSend{{"/dead", messages("together")}, {"/all", messages("together")}}}
	_, err = w.Transact(w.ctx, alice, r)
	w.must(err)
	w.writeGolden2()
	files := w.journal.Segments()
	w.Close()
	w.must(os.MkdirAll(to, 0o755))
	for _, f := range files {
		content, err := os.ReadFile(filepath.Join(dir, f.File))
		w.must(err)
		w.must(os.WriteFile(filepath.Join(to, f.File), content, 0o644))
	}
}

// writeGolden2 writes what format 2 added: binds, messages with a past, and schemas.
func (w *world) writeGolden2() {
	w.create("/copies")
	w.create("/bound", func(s *queue.Settings) {
		s.Binds = []queue.Bind{{To: "/copies", Selector: queue.Selector{Kind: queue.TypeIs, Type: 5}, Skip: true}}
	})
	w.register("/bound", orderSet(0, "id"), validated)
	w.register("/bound", orderSet(0, "id", "sum"), validated)
	w.create("/moved")
	w.send("/copies", "moved", "stays")
	w.move(MoveRequest{From: "/copies", To: "/moved", Filter: queue.Filter{MaxSequence: 1}})
	_, err := w.Import(w.ctx, alice, ImportRequest{Queue: "/moved", Messages: []queue.Peeked{
		{Delivery: queue.Delivery{Message: queue.Message{Type: 1, Body: []byte("tried")}, SentAt: 1_600_000_000_000_000_000, Attempts: 3}},
		{Delivery: queue.Delivery{Message: queue.Message{Type: 1, Body: []byte("buried")}, SentAt: 1_600_000_000_000_000_000}, State: queue.Buried, BuryReason: "why"},
		{Delivery: queue.Delivery{Message: queue.Message{Type: 1, Body: []byte("delayed")}}, State: queue.Delayed, Due: 1 << 62, Expires: 1<<62 + 1},
	}})
	w.must(err)
}

func (w *world) readGolden2() {
	info, err := w.GetQueue(w.ctx, alice, "/bound")
	w.must(err)
	if b := info.Settings.Binds; len(b) != 1 || b[0].String() != "/copies (5) or skip" {
		w.Errorf("binds %v", b)
	}
	schema, versions, err := w.GetSchema(w.ctx, alice, "/bound", 0)
	w.must(err)
	if schema.Version != 2 || !slices.Equal(versions, []uint32{1, 2}) || !slices.Equal(schema.Types, validated) {
		w.Errorf("schema %d of %v: %+v", schema.Version, versions, schema)
	}
	for field, want := range map[protowire.Number]reason.Reason{2: "", 3: reason.SchemaMismatch} {
		_, err := w.Send(w.ctx, alice, SendRequest{Queue: "/bound", Messages: []queue.Message{order(field)}})
		w.wants(err, want)
	}
	if info, err = w.GetQueue(w.ctx, alice, "/copies"); err != nil || info.Stats.Moved != 1 || peekedBodies(w.all("/copies")) != "stays " {
		w.Errorf("/copies has %s: %+v, %v", peekedBodies(w.all("/copies")), info.Stats, err)
	}
	got := w.all("/moved")
	if text := peekedBodies(got); text != "moved tried buried delayed " {
		w.Fatalf("/moved has %s", text)
	}
	if p := got[1]; p.State != queue.Ready || p.Attempts != 3 || p.SentAt != 1_600_000_000_000_000_000 {
		w.Errorf("%+v", p)
	}
	if p := got[2]; p.State != queue.Buried || p.BuryReason != "why" || p.SentAt != 1_600_000_000_000_000_000 {
		w.Errorf("%+v", p)
	}
	if p := got[3]; p.State != queue.Delayed || p.Due != 1<<62 || p.Expires != 1<<62+1 || p.SentAt < 1_600_000_000_000_000_000 {
		w.Errorf("%+v", p)
	}
}

const limitsDelay = 366 * 24 * time.Hour

func readGolden(t *testing.T, from string) {
	dir := t.TempDir()
	files, err := os.ReadDir(from)
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		content, err := os.ReadFile(filepath.Join(from, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, f.Name()), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	found, err := Inspect(t.Context(), InspectOptions{FS: vfs.OS{}, Dir: dir, Verify: true})
	if err != nil || found.DamageError() != nil {
		t.Fatal(err, found.DamageError())
	}
	w := openGolden(t, dir)
	defer w.Close()
	if filepath.Base(from) != "1" {
		w.readGolden2()
	}
	_, err = w.GetQueue(w.ctx, alice, "/gone")
	w.wants(err, reason.QueueNotFound)
	info, err := w.GetQueue(w.ctx, alice, "/all")
	w.must(err)
	if s := info.Settings; s.TypeNames["created"] != 7 || s.MaxAttempts != 2 || s.DeadLetter != "/dead" || s.Durability != queue.Journal {
		t.Errorf("settings %+v", s)
	}
	if s := info.Stats; s.Sent != 9 || s.Consumed != 1 || s.DeadLettered != 1 || s.Nacked != 3 {
		t.Errorf("statistics %+v", s)
	}
	if m, err := w.GetQueue(w.ctx, alice, "/memory"); err != nil || m.Settings.Durability != queue.Memory || w.send("/memory", "x").First < 2 {
		t.Errorf("the memory queue: %+v, %v", m, err)
	}
	again, err := w.Send(w.ctx, alice, SendRequest{Queue: "/all", Messages: []queue.Message{{Type: 1, DedupID: "id"}}})
	w.must(err)
	sent := time.Unix(0, again.SentAt)
	fresh := len(again.Duplicates) == 0 // the window, of 7 days, is over by now, unless the journal is younger
	if page, _ := w.Peek(w.ctx, alice, PeekRequest{Queue: "/all", Filter: queue.Filter{MaxSequence: 1}}); len(page.Messages) > 0 && sent.Sub(time.Unix(0, page.Messages[0].SentAt)) < 6*24*time.Hour && fresh {
		t.Error("the dedup id is forgotten")
	}
	info, err = w.PauseQueue(w.ctx, alice, "/dead", false)
	w.must(err)
	if info.Paused {
		t.Error("/dead stays paused")
	}
	if out := w.receive("/dead", 9); bodiesOf(out) != "dies together " || len(out[0].Headers) != 5 {
		t.Errorf("/dead has %q", bodiesOf(out))
	}
	page, err := w.Peek(w.ctx, alice, PeekRequest{Queue: "/all", Filter: queue.Filter{States: []queue.State{queue.Buried}}})
	w.must(err)
	if len(page.Messages) != 1 || page.Messages[0].BuryReason != "why" || string(page.Messages[0].Body) != "buried" {
		t.Errorf("buried: %+v", page.Messages)
	}
	out := w.receive("/all", 9)
	for _, d := range out {
		if string(d.Body) == "tried once" && d.Attempts != 1 {
			t.Errorf("%d attempts, want 1", d.Attempts)
		}
		if string(d.Body) == "headers" && (d.Type != 7 || d.CorrelationID != "c" || d.ReplyTo != "/r" || d.ContentType != "t" || string(d.Headers[0].Value) != "v") {
			t.Errorf("%+v", d)
		}
	}
	// In a year the delay and the TTL end: then there is one more, and one less.
	if text := bodiesOf(out); len(out) < 5 || text[:19] != "tried once headers " {
		t.Errorf("/all has %q", text)
	}
}
