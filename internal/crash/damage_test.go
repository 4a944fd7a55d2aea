//go:build linux

package crash

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ipcd/ipcd/client"
)

// rot flips a bit of the one file of the journal that holds text: of the byte that lies so far before it.
func rot(t *testing.T, h *home, text string, before int) (file string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(h.journal(), "*.seg"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		at := bytes.Index(data, []byte(text))
		if at < 0 {
			continue
		}
		if file != "" || bytes.Contains(data[at+1:], []byte(text)) {
			t.Fatalf("%q is there twice", text)
		}
		file = name
		data[at-before] ^= 0x10
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if file == "" {
		t.Fatalf("%q is nowhere in the journal", text)
	}
	return file
}

// What rot may hit. A payload stands behind its size and checksum, and that behind the records of its frame.
const (
	payload = 0
	record  = 24
)

// digest is what the files of the journal hold.
func digest(t *testing.T, h *home) map[string]string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(h.journal(), "*"))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all[name] = string(data)
	}
	return all
}

// damaged makes a home with the queues /rotten and /sound, ten messages in each, in turn; then it damages
// the sixth of /rotten, its payload or its record. Messages came after it, so that the journal has promised it.
func damaged(t *testing.T, before int) (h *home, file string) {
	t.Helper()
	h = newHome(t, smallSegments...)
	d := h.start()
	c := h.dial()
	rotten, sound := create(t, c, "/rotten"), create(t, c, "/sound")
	for i := range 10 {
		for _, q := range []*client.Queue{rotten, sound} {
			if _, err := q.Send(within(t), client.Message{Body: fmt.Appendf(nil, "message %d of %s", i, q.Name())}); err != nil {
				t.Fatal(err)
			}
		}
	}
	d.kill()
	h.clean()
	return h, rot(t, h, "message 5 of /rotten", before)
}

func TestDamageIsRefusedByNameAndTouchesNothing(t *testing.T) {
	for name, before := range map[string]int{"payload": payload, "record": record} {
		t.Run(name, func(t *testing.T) {
			h, file := damaged(t, before)
			was := digest(t, h)
			if r := h.fsck(); r.exit != exitDamage || !strings.Contains(r.out+r.err, filepath.Base(file)) || !strings.Contains(r.out+r.err, "/rotten") {
				t.Errorf("fsck: exit %d, want %d and %s and /rotten named:\n%s%s", r.exit, exitDamage, filepath.Base(file), r.out, r.err)
			}
			// Twice: a start that is refused must not hide the damage from the next.
			for range 2 {
				d := h.launch()
				if d.serves() {
					t.Fatal("it starts")
				}
				if code := d.exitCode(); code != exitDamage {
					t.Errorf("exit %d, want %d", code, exitDamage)
				}
				for _, word := range []string{filepath.Base(file), "offset", "/rotten"} {
					if !strings.Contains(d.log.String(), word) {
						t.Errorf("it does not say %q", word)
					}
				}
				if strings.Contains(d.log.String(), "/sound") {
					t.Errorf("it blames /sound, too")
				}
			}
			for name, data := range digest(t, h) {
				if was[name] != data {
					t.Errorf("%s was changed", name)
				}
			}
		})
	}
}

func TestQuarantineKeepsOtherQueuesAtWork(t *testing.T) {
	for name, before := range map[string]int{"payload": payload, "record": record} {
		t.Run(name, func(t *testing.T) {
			h, _ := damaged(t, before)
			// What was found once, no later start may forget, whether it is told to expect damage or not.
			for _, more := range [][]string{{"--on-damage", "quarantine"}, {"--on-damage", "quarantine"}, {}} {
				d := h.start(more...)
				quarantined(t, h)
				d.kill()
			}
		})
	}
}

// quarantined looks at a daemon that runs in spite of the damage.
func quarantined(t *testing.T, h *home) {
	t.Helper()
	c := h.dial()
	rotten, sound := c.Queue("/rotten"), c.Queue("/sound")
	if _, err := rotten.Send(within(t), client.Message{Body: []byte("more")}); !errors.Is(err, client.ErrDamaged) {
		t.Errorf("send to the damaged queue: %v, want DAMAGED", err)
	}
	if _, err := rotten.Receive(within(t), 1, client.ReceiveOptions{}); !errors.Is(err, client.ErrDamaged) {
		t.Errorf("receive from the damaged queue: %v, want DAMAGED", err)
	}
	var left []string
	states := []client.State{client.StateReady, client.StateLeased, client.StateBuried}
	for m, err := range rotten.Peek(within(t), client.PeekOptions{Filter: client.Filter{States: states}}) {
		if err != nil {
			t.Fatalf("peek at the damaged queue: %v", err)
		}
		left = append(left, string(m.Body))
	}
	for i := range 10 {
		if text := fmt.Sprintf("message %d of /rotten", i); i != 5 && !slices.Contains(left, text) {
			t.Errorf("peek does not show %q, which is not damaged: %q", text, left)
		}
	}
	if storage := storageOf(t, h); !slices.Equal(storage.DamagedQueues, []string{"/rotten"}) {
		t.Errorf("the daemon names %q as damaged", storage.DamagedQueues)
	}
	deliveries, err := sound.Receive(within(t), 2, client.ReceiveOptions{})
	if err != nil || len(deliveries) != 2 {
		t.Fatalf("receive from the other queue: %d, %v", len(deliveries), err)
	}
	for _, m := range deliveries {
		if err := m.Ack(within(t)); err != nil {
			t.Error(err)
		}
	}
	if _, err := sound.Send(within(t), client.Message{Body: []byte("more")}); err != nil {
		t.Errorf("send to the other queue: %v", err)
	}
}

// TestTornTailIsNoDamage cuts the journal where a crash may have: behind all that was promised.
func TestTornTailIsNoDamage(t *testing.T) {
	h := newHome(t, smallSegments...)
	d := h.start()
	q := create(t, h.dial(), "/q")
	for i := range 20 {
		if _, err := q.Send(within(t), client.Message{Body: fmt.Appendf(nil, "message %d.", i)}); err != nil {
			t.Fatal(err)
		}
	}
	d.kill()
	file, offset := "", 0
	for name, data := range digest(t, h) {
		if at := bytes.Index([]byte(data), []byte("message 19.")); at >= 0 {
			file, offset = name, at
		}
	}
	if file == "" {
		t.Fatal("the last message is not in the journal")
	}
	// Bytes that look like nothing, behind the last frames; what a torn write leaves.
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	end := len(data)
	for end > offset && data[end-1] == 0 {
		end--
	}
	for i := end + 64; i < min(end+600, len(data)); i++ {
		data[i] = byte(i * 7)
	}
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	h.clean()
	d = h.start()
	if info, err := h.dial().GetQueue(within(t), "/q"); err != nil || info.Stats.Ready != 20 {
		t.Errorf("%+v, %v; want 20 messages", info.Stats, err)
	}
	d.stop()
}

// rottenBacklog makes a home with a queue /q of so many messages of 1 KiB in several segments, and a queue
// /sound; then it damages the eleventh message. No start reads the payloads of a segment that is full.
func rottenBacklog(t *testing.T, count int) *home {
	t.Helper()
	h := newHome(t, "segment_size: 256KiB", "keep_free: 0", "payload_memory: 1MiB")
	d := h.start()
	q := create(t, h.dial(), "/q")
	send(t, create(t, h.dial(), "/sound"), "m")
	for first := 0; first < count; first += 50 {
		batch := make([]client.Message, 50)
		for i := range batch {
			batch[i].Body = fmt.Appendf(nil, "%-1024s", fmt.Sprintf("message %d.", first+i))
		}
		if _, err := q.Send(within(t), batch...); err != nil {
			t.Fatal(err)
		}
	}
	d.kill()
	h.clean()
	rot(t, h, "message 10. ", payload)
	if r := h.fsck(); r.exit != exitDamage {
		t.Errorf("fsck: exit %d, want %d", r.exit, exitDamage)
	}
	return h
}

func TestRottenPayloadIsNeverDelivered(t *testing.T) {
	h := rottenBacklog(t, 2000)
	d := h.start()
	_, err := h.dial().Queue("/q").Receive(d.lifetime(), 100, client.ReceiveOptions{})
	if code := d.exitCode(); code != exitDamage {
		t.Errorf("exit %d, want %d", code, exitDamage)
	}
	if err == nil {
		t.Error("a receive that needs the damaged message succeeds")
	}
	for _, word := range []string{".seg", "offset", "/q"} {
		if !strings.Contains(d.log.String(), word) {
			t.Errorf("it does not say %q", word)
		}
	}
}

func TestRottenPayloadIsQuarantined(t *testing.T) {
	h := rottenBacklog(t, 2000)
	d := h.start("--on-damage", "quarantine")
	c := h.dial()
	q, sound := c.Queue("/q"), c.Queue("/sound")
	for {
		deliveries, err := q.Receive(within(t), 100, client.ReceiveOptions{})
		if errors.Is(err, client.ErrDamaged) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(deliveries) == 0 {
			t.Error("the damage never shows")
			break
		}
		for _, m := range deliveries {
			if want := fmt.Sprintf("message %d.", m.Sequence-1); strings.TrimSpace(string(m.Body)) != want {
				t.Fatalf("sequence %d has body %.40q", m.Sequence, m.Body)
			}
			if m.Sequence == 11 {
				t.Error("the damaged message was delivered")
			}
		}
	}
	if got := bodies(receive(t, sound, 1)); !slices.Equal(got, []string{"m"}) {
		t.Errorf("the other queue delivers %q", got)
	}
	d.kill()
}
