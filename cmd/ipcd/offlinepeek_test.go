package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/limits"
)

// bodies are those of what peek -o json shows, base64 where it had to be.
func bodies(t *testing.T, s said) []string {
	t.Helper()
	var shown struct{ Messages []messageView }
	if err := json.Unmarshal([]byte(s.fine(t).out), &shown); err != nil {
		t.Fatalf("%v: %s", err, s.out)
	}
	var all []string
	for _, m := range shown.Messages {
		if m.Body != nil {
			all = append(all, *m.Body)
		} else {
			all = append(all, *m.BodyBase64)
		}
	}
	return all
}

func TestPeekShowsMessagesAsTheyStand(t *testing.T) {
	binary := base64.StdEncoding.EncodeToString([]byte{0xff, 0})
	for name, dir := range map[string]string{"clean": filled(t), "killed": killed(t, (*store).fill)} {
		for _, test := range []struct {
			args []string
			want []string
		}{
			{nil, []string{binary, "one\ntwo\x1b[2J", "last"}}, // priority first
			{[]string{"-n", "2"}, []string{binary, "one\ntwo\x1b[2J"}},
			{[]string{"--type", "7"}, []string{binary, "last"}},
			{[]string{"--state", "buried"}, []string{"buried"}},
			{[]string{"--state", "leased"}, []string{"leased"}},
			{[]string{"--state", "delayed"}, []string{"delayed"}},
			{[]string{"--state", "all"}, []string{binary, "one\ntwo\x1b[2J", "last", "delayed", "leased", "buried"}},
			{[]string{"--state", "all", "--type", "9"}, []string{"leased"}},
			{[]string{"--type", "12345"}, nil},
		} {
			s := ipcd(t, dir, append([]string{"peek", "jobs", "-o", "json"}, test.args...)...)
			if got := bodies(t, s); !slices.Equal(got, test.want) {
				t.Errorf("%s, %q: %q, want %q", name, test.args, got, test.want)
			}
		}
	}
}

func TestPeekTellsAllAboutAMessage(t *testing.T) {
	dir := filled(t)
	var shown struct{ Messages []messageView }
	if err := json.Unmarshal([]byte(ipcd(t, dir, "peek", "/jobs", "--state", "all", "-o", "json").fine(t).out), &shown); err != nil {
		t.Fatal(err)
	}
	by := map[string]messageView{}
	for _, m := range shown.Messages {
		if m.Queue != "/jobs" || m.Sequence == 0 || strings.HasPrefix(m.SendTime, "1970") {
			t.Errorf("%+v", m)
		}
		if m.Body != nil {
			by[*m.Body] = m
		}
	}
	if m := by["one\ntwo\x1b[2J"]; m.State != "ready" || m.Headers["k"] != "v" || m.CorrelationID != "c" || m.Type != 1 {
		t.Errorf("%+v", m)
	}
	if m := by["buried"]; m.BuryReason != "no \x1b[31mgood" || m.State != "buried" {
		t.Errorf("%+v", m)
	}
	if m := by["leased"]; m.LeaseExpireTime <= m.SendTime || m.Type != 9 {
		t.Errorf("%+v", m)
	}
	if m := by["delayed"]; m.DueTime <= m.SendTime {
		t.Errorf("%+v", m)
	}
}

// What strangers sent reaches a terminal escaped, in text and in JSON.
func TestPeekShowsControlsAndObeysNone(t *testing.T) {
	dir := filled(t)
	for _, output := range []string{"text", "json"} {
		out := ipcd(t, dir, "peek", "/jobs", "--state", "all", "-o", output).fine(t).out
		if strings.ContainsAny(out, "\x1b\x00") || !utf8.ValidString(out) {
			t.Errorf("%s has control bytes in it: %q", output, out)
		}
	}
	out := ipcd(t, dir, "peek", "/jobs", "--state", "all").fine(t).out
	for _, want := range []string{"type 7  priority 3", `    one` + "\n" + `    two\x1b[2J`, `\xff\x00`, `buried because: no \x1b[31mgood`, "header k: v", "correlation id: c", "delayed", "leased"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in %q", want, out)
		}
	}
}

func TestPeekRawIsTheBodiesAlone(t *testing.T) {
	if out := ipcd(t, filled(t), "peek", "/jobs", "-o", "raw").fine(t).out; out != "\xff\x00\none\ntwo\x1b[2J\nlast\n" {
		t.Errorf("%q", out)
	}
}

func TestPeekCutsLongBodiesInTextOnly(t *testing.T) {
	dir := stateDir(t)
	s := openStore(t, dir)
	s.create("/long")
	body := "x" + strings.Repeat("é", textBodyBytes) + "end" // the cut falls within an é
	s.send("/long", queue.Message{Body: []byte(body)}, queue.Message{})
	s.Close()
	out := ipcd(t, dir, "peek", "/long").fine(t).out
	if strings.Contains(out, "end") || !strings.Contains(out, fmt.Sprintf("of %d bytes", len(body))) || strings.Contains(out, `\x`) || !strings.Contains(out, "(empty)") {
		t.Errorf("%q", out)
	}
	if got := bodies(t, ipcd(t, dir, "peek", "/long", "-o", "json")); got[0] != body || got[1] != "" {
		t.Errorf("%q", got)
	}
}

// More messages than a page has, and more bytes than a segment.
func TestPeekShowsAllOfManyMessages(t *testing.T) {
	dir := stateDir(t)
	s := openStore(t, dir)
	s.create("/many")
	var want []string
	for i := range 2*limits.PeekPage + 3 {
		body := bytes.Repeat([]byte{'a' + byte(i%26)}, 1000+i)
		s.send("/many", queue.Message{Body: body})
		want = append(want, string(body))
	}
	s.Close()
	if n := len(segments(t, dir)); n < 3 {
		t.Fatalf("%d segments: too few to test with", n)
	}
	if got := bodies(t, ipcd(t, dir, "peek", "/many", "-n", "0", "-o", "json")); !slices.Equal(got, want) {
		t.Errorf("%d messages, want %d", len(got), len(want))
	}
	if got := bodies(t, ipcd(t, dir, "peek", "/many", "-n", "300", "-o", "json")); !slices.Equal(got, want[:300]) {
		t.Errorf("%d messages, want 300", len(got))
	}
	if got := bodies(t, ipcd(t, dir, "peek", "/many", "-o", "json")); !slices.Equal(got, want[:10]) {
		t.Errorf("%d messages, want 10", len(got))
	}
}

func TestPeekSaysWhenThereIsNothing(t *testing.T) {
	if s := ipcd(t, filled(t), "peek", "/scratch").fine(t); s.out != "" || !strings.Contains(s.err, "no such messages in /scratch") {
		t.Errorf("said %q, %q", s.out, s.err)
	}
}

func TestPeekKnowsTheQueuesNamesForTypes(t *testing.T) {
	dir := stateDir(t)
	s := openStore(t, dir)
	s.create("/named", func(settings *queue.Settings) { settings.TypeNames = map[string]int64{"created": 7, "failed": 8} })
	s.send("/named", queue.Message{Body: []byte("a"), Type: 7}, queue.Message{Body: []byte("b"), Type: 8}, queue.Message{Body: []byte("c"), Type: 9})
	s.Close()
	for selector, want := range map[string]string{"created": "a", "not:failed": "ac", "created,9": "ac", "upto:8": "ab", "<=failed": "ab", "8": "b", "!9": "ab"} {
		if got := strings.Join(bodies(t, ipcd(t, dir, "peek", "named", "-o", "json", "--type", selector)), ""); got != want {
			t.Errorf("%s: %q, want %q", selector, got, want)
		}
	}
	out := ipcd(t, dir, "peek", "named").fine(t).out
	if !strings.Contains(out, "type created (7)") || !strings.Contains(out, "ready  type 9") {
		t.Errorf("said %q", out)
	}
	if out := ipcd(t, dir, "peek", "named", "-o", "json").fine(t).out; !strings.Contains(out, `"type_name": "failed"`) {
		t.Errorf("said %q", out)
	}
	if out := ipcd(t, dir, "ls", "-o", "json").fine(t).out; !strings.Contains(out, `"created": 7`) {
		t.Errorf("said %q", out)
	}
	ipcd(t, dir, "peek", "named", "--type", "creatd").fails(t, "creatd", "created, failed")
}
