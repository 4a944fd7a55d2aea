package main

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestLsShowsQueuesByState(t *testing.T) {
	for name, dir := range map[string]string{"clean": filled(t), "killed": killed(t, (*store).fill)} {
		lines := strings.Split(ipcd(t, dir, "ls").fine(t).out, "\n")
		want := [][]string{
			{"NAME", "DURABILITY", "READY", "DELAYED", "LEASED", "BURIED", "BYTES"},
			{"/jobs", "journal", "3", "1", "1", "1", "39", "B"},
			{"/scratch", "memory", "0", "0", "0", "0", "0", "B"},
		}
		for i, line := range want {
			if got := strings.Fields(lines[i]); strings.Join(got, " ") != strings.Join(line, " ") {
				t.Errorf("%s: line %d: %q, want %q", name, i, got, line)
			}
		}
	}
}

func TestLsAsJSON(t *testing.T) {
	var got struct{ Queues []queueView }
	if err := json.Unmarshal([]byte(ipcd(t, filled(t), "ls", "-o", "json").fine(t).out), &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Queues) != 2 {
		t.Fatalf("%d queues", len(got.Queues))
	}
	q := got.Queues[0]
	if q.Name != "/jobs" || q.ID == 0 || q.Settings.Durability != "journal" || q.Stats != (statsView{stateCounts{3, 1, 1, 1}, 39}) ||
		strings.HasPrefix(q.CreateTime, "1970") {
		t.Errorf("%+v", q)
	}
}

func TestLsOfAnEmptyJournalIsAnEmptyList(t *testing.T) {
	dir := stateDir(t)
	openStore(t, dir).Close()
	if s := ipcd(t, dir, "ls", "-o", "json").fine(t); strings.Join(strings.Fields(s.out), "") != `{"queues":[]}` {
		t.Errorf("said %q", s.out)
	}
	if s := ipcd(t, dir, "ls").fine(t); s.out != "" || s.err != "no queues\n" {
		t.Errorf("said %q, %q", s.out, s.err)
	}
}

// Deleted queues stay away, also where their records are still in the journal.
func TestLsShowsNoDeletedQueue(t *testing.T) {
	dir := stateDir(t)
	s := openStore(t, dir)
	s.fill()
	_, err := s.DeleteQueue(t.Context(), rootUser, "/jobs")
	s.must(err)
	s.Close()
	if out := ipcd(t, dir, "ls").fine(t).out; strings.Contains(out, "/jobs") || !strings.Contains(out, "/scratch") {
		t.Errorf("said %q", out)
	}
}
