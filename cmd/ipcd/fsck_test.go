package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/limits"
)

// checked runs fsck --json.
func checked(t *testing.T, dir string) (fsckReport, said) {
	t.Helper()
	s := ipcd(t, dir, "fsck", "--json")
	var r fsckReport
	if err := json.Unmarshal([]byte(s.out), &r); err != nil {
		t.Fatalf("%v: %q, %v", err, s.out, s.failure)
	}
	if r.Damaged != s.isDamage() || r.Damaged != (len(r.Damage) > 0) || r.Damaged != (s.failure != nil) {
		t.Fatalf("%v does not fit %+v", s.failure, r)
	}
	return r, s
}

// change applies edit to a file.
func change(t *testing.T, file string, edit func([]byte) []byte) {
	t.Helper()
	content, err := os.ReadFile(file)
	if err == nil {
		err = os.WriteFile(file, edit(content), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// flip changes the byte at offset.
func flip(t *testing.T, file string, offset int) {
	t.Helper()
	change(t, file, func(content []byte) []byte {
		content[offset] ^= 1
		return content
	})
}

// copyOf is a copy of a state directory, to be damaged.
func copyOf(t *testing.T, dir string) string {
	t.Helper()
	copied := t.TempDir()
	if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return copied
}

// manySegments fills several segments with 250 messages of /a, and one of /b.
func manySegments(t *testing.T) (dir string, files []string) {
	t.Helper()
	dir = killed(t, func(s *store) {
		s.create("/a")
		s.create("/b")
		for i := range 250 {
			s.send("/a", queue.Message{Body: fmt.Appendf(nil, "<%03d>%0*d", i, limits.SegmentBytesMin/60, 0)})
		}
		s.send("/b", queue.Message{Body: []byte("b after all")})
	})
	if files = segments(t, dir); len(files) < 4 {
		t.Fatalf("%d segments: too few to test with", len(files))
	}
	return dir, files
}

func TestFsckOfASoundJournal(t *testing.T) {
	for name, dir := range map[string]string{"clean": filled(t), "killed": killed(t, (*store).fill)} {
		r, _ := checked(t, dir)
		if r.Queues != 2 || r.Messages != (stateCounts{3, 1, 1, 1}) || r.MessageBytes != 39 || r.Segments != 1 || r.Frames == 0 || r.Bytes <= 0 || r.StateDir != dir || r.LastRecordTime == "" {
			t.Errorf("%s: %+v", name, r)
		}
		if r.CleanStop != (name == "clean") {
			t.Errorf("%s: clean stop %v", name, r.CleanStop)
		}
		if out := ipcd(t, dir, "fsck").fine(t).out; !strings.Contains(out, "no damage\n") || !strings.Contains(out, "3 ready, 1 delayed, 1 leased, 1 buried") {
			t.Errorf("%s: said %q", name, out)
		}
	}
	dir, _ := manySegments(t)
	if r, _ := checked(t, dir); r.Messages.Ready != 251 || r.Segments < 4 {
		t.Errorf("%+v", r)
	}
}

// bodyIn finds a body of manySegments in a file, -1 if there is none.
func bodyIn(t *testing.T, file string) int {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	at := regexp.MustCompile(`<\d{3}>0000`).FindIndex(content)
	if at == nil {
		return -1
	}
	return at[0]
}

// A payload is of no use for the queues' state, but fsck reads it all the same.
func TestFsckFindsAFlippedByteInAPayload(t *testing.T) {
	dir, files := manySegments(t)
	tried := 0
	for _, file := range files {
		at := bodyIn(t, file)
		if at < 0 {
			continue // a spare
		}
		tried++
		copied := copyOf(t, dir)
		name := filepath.Base(file)
		flip(t, filepath.Join(copied, journalDir, name), at+100)
		before := snapshot(t, copied)
		r, s := checked(t, copied)
		if !r.Damaged || filepath.Base(r.Damage[0].File) != name || r.Damage[0].Offset == 0 || r.Damage[0].Offset > int64(at) || r.Damage[0].Generation == 0 ||
			!slices.Equal(r.Damage[0].Queues, []string{"/a"}) || !slices.Equal(r.ConcernedQueues, []string{"/a"}) {
			t.Errorf("%s: %+v", name, r)
			continue
		}
		s.fails(t, "ipcd restore", "quarantine")
		if out := ipcd(t, copied, "fsck").out; !strings.Contains(out, "DAMAGE") || !strings.Contains(out, name) || strings.Contains(out, "no damage") {
			t.Errorf("%s: said %q", name, out)
		}
		if snapshot(t, copied) != before {
			t.Errorf("%s: fsck has changed what is damaged", name)
		}
	}
	if tried < 3 {
		t.Errorf("%d segments were tried, want more", tried)
	}
}

func TestFsckFindsAMissingSegment(t *testing.T) {
	dir, files := manySegments(t)
	oldest := slices.IndexFunc(files, func(file string) bool { return bodyIn(t, file) >= 0 })
	if err := os.Remove(files[oldest+1]); err != nil {
		t.Fatal(err)
	}
	if r, _ := checked(t, dir); !r.Damaged || len(r.ConcernedQueues) == 0 {
		t.Errorf("%+v", r)
	}
}

// What a crash may leave behind the last frame is no damage.
func TestFsckTakesATornTailForNormal(t *testing.T) {
	dir := killed(t, (*store).fill)
	file := segments(t, dir)[0]
	sound, _ := checked(t, dir)
	change(t, file, func(content []byte) []byte {
		end := len(bytes.TrimRight(content, "\x00"))
		copy(content[end+64&^7:], strings.Repeat("torn", 20))
		return content
	})
	r, _ := checked(t, dir)
	if r.Damaged || r.Frames != sound.Frames || r.Messages != sound.Messages {
		t.Errorf("%+v, before %+v", r, sound)
	}
}

// ls and peek show what is left, and say that this is not all.
func TestLsAndPeekOfADamagedJournalShowWhatIsLeft(t *testing.T) {
	dir, files := manySegments(t)
	// Not the oldest: that one has the queues' definitions.
	file := files[1+slices.IndexFunc(files, func(file string) bool { return bodyIn(t, file) >= 0 })]
	flip(t, file, bodyIn(t, file)+500)
	s := ipcd(t, dir, "peek", "/a", "-n", "0", "-o", "json")
	if !s.isDamage() || !strings.Contains(s.failure.Error(), "ipcd fsck") {
		t.Errorf("peek: %v", s.failure)
	}
	s.failure = nil
	if got := bodies(t, s); len(got) < 240 || slices.Contains(got, "") != (len(got) == 250) {
		t.Errorf("%d messages", len(got))
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	s = ipcd(t, dir, "ls")
	if !s.isDamage() || !strings.Contains(s.out, "/b") {
		t.Errorf("ls: %v, %q", s.failure, s.out)
	}
}

// Wherever a byte is flipped, fsck ends, and either finds it or shows the messages as they were.
func TestFsckSurvivesAnyFlippedByte(t *testing.T) {
	dir := killed(t, (*store).fill)
	sound, _ := checked(t, dir)
	file := segments(t, dir)[0]
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	end := len(bytes.TrimRight(content, "\x00"))
	for at := 0; at < end; at += 1 + at%7 {
		if at > 256 && at < 4096 {
			continue // zeros behind the segment's header
		}
		flip(t, file, at)
		r, s := checked(t, dir)
		if r.Damaged {
			found++
		} else if s.failure == nil && r.Messages != sound.Messages {
			t.Errorf("byte %d flipped: %+v", at, r)
		}
		flip(t, file, at)
	}
	if found == 0 {
		t.Error("no flip was found")
	}
}

func TestFsckTellsOfDamageThatWasAccepted(t *testing.T) {
	var out strings.Builder
	if err := (&fsckReport{Quarantined: map[string]string{"/a": "bad luck"}}).write(&out); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "/a, since damage was accepted: bad luck") || !strings.Contains(out.String(), "no other damage") {
		t.Errorf("said %q", out.String())
	}
}

// A queue is named with the damage, on one line, whatever its reason says.
func TestFsckDamageIsOneLine(t *testing.T) {
	d := fsckDamage{File: "/s/journal/0000.seg", Offset: 8, Generation: 3, Reason: "bad\nluck", Queues: []string{"/a"}}
	if got := d.text(); got != `/s/journal/0000.seg, offset 8, generation 3: bad\nluck; of /a` {
		t.Errorf("%q", got)
	}
}
