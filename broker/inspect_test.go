package broker

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/vfs"
)

// shelf is a broker whose journal is inspected when it is closed.
type shelf struct {
	*Broker
	t   *testing.T
	dir string
}

func newShelf(t *testing.T, dir string) *shelf {
	t.Helper()
	b, err := Open(Options{Journal: &JournalOptions{FS: vfs.OS{}, Dir: dir, SegmentBytes: limits.SegmentBytesMin}})
	if err != nil {
		t.Fatal(err)
	}
	return &shelf{b, t, dir}
}

func (s *shelf) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *shelf) create(name string) {
	s.t.Helper()
	_, _, err := s.CreateQueue(s.t.Context(), root, name, func(settings *queue.Settings) error {
		settings.Durability, settings.Kernel.Mode, settings.MaxAttempts = queue.Journal, queue.KernelNone, 3
		return nil
	}, false)
	s.must(err)
}

func (s *shelf) send(name string, m ...queue.Message) {
	s.t.Helper()
	for i := range m {
		m[i].Type = max(1, m[i].Type)
	}
	_, err := s.Send(s.t.Context(), root, SendRequest{Queue: name, Messages: m})
	s.must(err)
}

// inspected reads the journal, all of it.
func inspected(t *testing.T, dir string) *Inspection {
	t.Helper()
	found, err := Inspect(t.Context(), InspectOptions{FS: vfs.OS{}, Dir: dir, Verify: true})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// everything peeks at all messages, page by page.
func everything(t *testing.T, name string, peek func(PeekRequest) (PeekPage, error)) (all []queue.Peeked) {
	t.Helper()
	r := PeekRequest{Queue: name, Filter: queue.Filter{States: []queue.State{queue.Ready, queue.Delayed, queue.Leased, queue.Buried}}}
	for more := true; more; {
		page, err := peek(r)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, page.Messages...)
		r.Cursor, more = page.Cursor, page.Cursor != ""
	}
	return all
}

// The journal shows exactly what the broker showed before it stopped, also of messages that were copied
// forward, out of memory, or moved through every state.
func TestInspectionShowsWhatTheBrokerShowed(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	dir := filepath.Join(t.TempDir(), "journal")
	s := newShelf(t, dir)
	names := []string{"/a", "/b", "/c"}
	for _, name := range names {
		s.create(name)
	}
	for range 2500 {
		name := names[r.IntN(len(names))]
		if r.IntN(5) < 2 {
			batch := make([]queue.Message, 1+r.IntN(4))
			for i := range batch {
				batch[i] = queue.Message{Type: 1 + r.Int64N(3), Priority: uint16(r.IntN(2)), Body: bytes.Repeat([]byte{byte(r.Uint32())}, r.IntN(3000))}
				if r.IntN(8) == 0 {
					batch[i].Delay = time.Hour
				}
				if r.IntN(8) == 0 {
					batch[i].Headers = []queue.Header{{Key: "k", Value: []byte(fmt.Sprint(r.Uint32()))}}
				}
			}
			s.send(name, batch...)
			continue
		}
		got, err := s.Receive(t.Context(), root, ReceiveRequest{Queue: name, Max: 1 + r.IntN(4), Lease: time.Hour})
		s.must(err)
		var settle []Settlement
		for _, d := range got {
			if r.IntN(20) > 0 { // else it stays leased
				settle = append(settle, Settlement{d.Receipt, Verdict{Outcome: []Outcome{Ack, Ack, Ack, Nack, Release, Bury, Touch}[r.IntN(7)], Reason: "why"}})
			}
		}
		_, err = s.Settle(t.Context(), root, settle)
		s.must(err)
	}
	want := map[string][]queue.Peeked{}
	stats := map[string]queue.Stats{}
	for _, name := range names {
		want[name] = everything(t, name, func(r PeekRequest) (PeekPage, error) { return s.Peek(t.Context(), root, r) })
		info, err := s.GetQueue(t.Context(), root, name)
		s.must(err)
		stats[name] = info.Stats.Stats
	}
	closing := time.Now().UnixNano()
	s.Close()

	found := inspected(t, dir)
	if found.At.Wall < closing {
		t.Errorf("the last record is of %d, and the broker was closed at %d", found.At.Wall, closing)
	}
	if found.DamageError() != nil || len(found.Quarantined) > 0 || !found.CleanStop || len(found.Queues) != len(names) || found.Segments < 2 {
		t.Fatalf("damage %v, clean %v, %d queues, %d segments", found.DamageError(), found.CleanStop, len(found.Queues), found.Segments)
	}
	for i, name := range names {
		q := found.Queues[i]
		got, was := q.Stats.Stats, stats[name]
		got.Peeked, was.Peeked = 0, 0
		if q.Name != name || got != was || q.CreatedAt == 0 {
			t.Errorf("%s: %+v, was %+v", q.Name, got, was)
		}
		messages := everything(t, name, func(r PeekRequest) (PeekPage, error) { return found.Peek(t.Context(), r) })
		if len(messages) != len(want[name]) {
			t.Fatalf("%s: %d messages, were %d", name, len(messages), len(want[name]))
		}
		for n := range messages {
			a, b := &messages[n], &want[name][n]
			// The end of a lease is told from two clocks, which do not run quite alike.
			if d := a.LeaseEnds - b.LeaseEnds; d < -1e9 || d > 1e9 {
				t.Errorf("%s: lease ends %d, ended %d", name, a.LeaseEnds, b.LeaseEnds)
			}
			a.LeaseEnds, b.LeaseEnds = 0, 0
			if !bytes.Equal(a.Body, b.Body) {
				t.Fatalf("%s, message %d: another body", name, a.Sequence)
			}
			a.Body, b.Body = nil, nil
			if !reflect.DeepEqual(a, b) {
				t.Fatalf("%s: %+v, was %+v", name, a, b)
			}
		}
	}
}

// lone writes one message of /a between two of /b, and returns where its body lies in which file.
func lone(t *testing.T, dir string) (file string, offset int) {
	t.Helper()
	running := filepath.Join(t.TempDir(), "journal")
	s := newShelf(t, running)
	defer s.Close()
	s.create("/a")
	s.create("/b")
	s.send("/b", queue.Message{Body: []byte("before")})
	s.send("/a", queue.Message{Body: []byte("the only one")})
	s.send("/b", queue.Message{Body: []byte("after")})
	s.send("/b", queue.Message{Body: []byte("after that")}) // and promises that all before was durable
	copyRunning(t, dir, running)
	files, err := filepath.Glob(filepath.Join(dir, "*.seg"))
	s.must(err)
	for _, file := range files {
		content, err := os.ReadFile(file)
		s.must(err)
		if offset := bytes.Index(content, []byte("the only one")); offset >= 0 {
			return file, offset
		}
	}
	t.Fatal("the message is in no file")
	return "", 0
}

// copyRunning copies the journal of a broker that runs: all but segments that are only being prepared, which come and go.
func copyRunning(t *testing.T, to, from string) {
	t.Helper()
	entries, err := os.ReadDir(from)
	if err == nil {
		err = os.MkdirAll(to, 0o700)
	}
	for _, e := range entries {
		if err != nil {
			break
		}
		if strings.HasSuffix(e.Name(), ".new") {
			continue
		}
		var content []byte
		if content, err = os.ReadFile(filepath.Join(from, e.Name())); err == nil {
			err = os.WriteFile(filepath.Join(to, e.Name()), content, 0o600)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

func flipByte(t *testing.T, file string, offset int) {
	t.Helper()
	content, err := os.ReadFile(file)
	if err == nil {
		content[offset] ^= 1
		err = os.WriteFile(file, content, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A lost frame concerns the queues that have no later one, however much came after of others.
func TestInspectionNamesTheQueueOfALostFrame(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "journal")
	file, offset := lone(t, dir)
	flipByte(t, file, offset-16) // before the payload's entry: in the frame's metadata
	found := inspected(t, dir)
	if len(found.Damage) != 1 || !slices.Equal(found.Damage[0].Queues, []string{"/a"}) || !slices.Equal(found.DamageError().Queues, []string{"/a"}) {
		t.Errorf("%+v", found.Damage)
	}
}

func TestInspectionNamesTheQueueOfAPayload(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "journal")
	file, offset := lone(t, dir)
	flipByte(t, file, offset)
	found := inspected(t, dir)
	if len(found.Damage) != 1 || !slices.Equal(found.Damage[0].Queues, []string{"/a"}) {
		t.Errorf("%+v", found.Damage)
	}
	page, err := found.Peek(t.Context(), PeekRequest{Queue: "/a"})
	if err != nil || len(page.Messages) != 1 || len(page.Messages[0].Body) != 0 {
		t.Errorf("%+v, %v", page, err)
	}
	page, err = found.Peek(t.Context(), PeekRequest{Queue: "/b"})
	if err != nil || len(page.Messages) != 3 || string(page.Messages[2].Body) != "after that" {
		t.Errorf("%+v, %v", page, err)
	}
}

// Once a daemon has accepted damage it is damage no more, but what is read-only can still be told.
func TestInspectionTellsWhatIsQuarantined(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "journal")
	file, _ := lone(t, dir)
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	flipByte(t, file, bytes.Index(content, []byte("after"))-16)
	if found := inspected(t, dir); found.DamageError() == nil || len(found.Quarantined) > 0 || !slices.Equal(found.DamageError().Queues, []string{"/a", "/b"}) {
		t.Errorf("before: %+v, quarantined %v", found.DamageError(), found.Quarantined)
	}
	b, err := Open(Options{Journal: &JournalOptions{FS: vfs.OS{}, Dir: dir, SegmentBytes: limits.SegmentBytesMin, Quarantine: true}})
	if err != nil {
		t.Fatal(err)
	}
	b.Close()
	if found := inspected(t, dir); found.DamageError() != nil || found.Quarantined["/b"] == "" {
		t.Errorf("after: %+v, quarantined %v", found.DamageError(), found.Quarantined)
	}
}

// Where a payload alone is hurt, queues without later records have lost nothing.
func TestInspectionNamesNoQueueThatIsWhole(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "journal")
	file, _ := lone(t, dir)
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	flipByte(t, file, bytes.Index(content, []byte("after")))
	if found := inspected(t, dir); len(found.Damage) != 1 || !slices.Equal(found.Damage[0].Queues, []string{"/b"}) {
		t.Errorf("%+v", found.Damage)
	}
}

func TestInspectionEndsWithTheContext(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "journal")
	lone(t, dir)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Inspect(ctx, InspectOptions{FS: vfs.OS{}, Dir: dir}); err == nil {
		t.Error("it went on")
	}
}
