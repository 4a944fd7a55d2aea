package main

import (
	"bytes"
	"context"
	"strings"
	"testing"

	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

func TestMoveTellsHowManyAlsoWhereItStopsHalfway(t *testing.T) {
	f := startFake(t)
	f.add("/a", "1", "2", "3")
	f.add("/b")
	f.add("/full")
	f.ctl(t, "", "move", "a", "b", "--dry-run").want(t, 0, "would move 3 messages from /a to /b\n", "")
	f.ctl(t, "", "move", "a", "full").want(t, 1, "", "moved 1 message from /a to /full\nipcctl: /a: the queue is full\n")
	f.ctl(t, "", "move", "a", "b", "--limit", "1").want(t, 0, "", "moved 1 message from /a to /b\n")
	f.ctl(t, "", "move", "a", "b", "--seq", "3", "--type", "failed", "--header", "k=v", "--state", "leased").want(t, 0, "", "moved 1 message from /a to /b\n")
	want := `{"source":"/a","destination":"/b","filter":{"selector":{"type":"8"},"states":["MESSAGE_STATE_LEASED"],"minSequence":"3","maxSequence":"3","headers":{"k":"dg=="}},"limit":"16384","cursor":"0"}`
	if got := protoJSON(t, seen[*ipcdv1.MoveMessagesRequest](t, f)); got != want {
		t.Errorf("sent\n%s\nwant\n%s", got, want)
	}
	f.ctl(t, "", "move", "a", "none").want(t, 3, "", "ipcctl: /a: there is no queue of this name; create it first\n")
}

func TestRedriveTellsWhatWentWhereAndWhyTheRestStayed(t *testing.T) {
	f := startFake(t)
	f.add("/dead", "1", "2")
	f.add("/stuck", "3")
	f.ctl(t, "", "redrive", "dead", "--dry-run").want(t, 0, "QUEUE  ORIGIN  MESSAGES  PROBLEM\n/dead  /jobs          2  -\n", "would move 2 messages back\n")
	f.ctl(t, "", "redrive", "dead", "stuck", "none").want(t, 3,
		"QUEUE   ORIGIN  MESSAGES  PROBLEM\n/dead   /jobs          2  -\n/stuck  /jobs          1  -\n/stuck  /mail          0  there is no such queue\\x1b\n",
		"ipcctl: /none: there is no queue of this name; create it first\nmoved 3 messages back\n")
	f.ctl(t, "", "redrive", "stuck", "--limit", "7", "-o", "json").want(t, 3, "{\"redriven\":[\n"+
		`{"queue":"/stuck","origin":"/jobs","messages":0},`+"\n"+
		`{"queue":"/stuck","origin":"/mail","messages":0,"reason":"QUEUE_NOT_FOUND","error":"there is no such queue\u001b"}`+"\n]}\n", "moved 0 messages back\n")
	if got := seen[*ipcdv1.RedriveMessagesRequest](t, f); got.Limit != 7 || got.DryRun {
		t.Errorf("sent %v", got)
	}
}

func TestBindsAreMadeListedAndEnded(t *testing.T) {
	f := startFake(t)
	f.add("/events")
	f.add("/audit")
	f.ctl(t, "", "bind", "events", "audit", "--type", "created,failed", "--overflow", "skip").want(t, 0, "", "/events hands created,failed on to /audit\n")
	if got, want := protoJSON(t, seen[*ipcdv1.BindQueueRequest](t, f).Bind), `{"destination":"/audit","selector":{"types":{"types":["7","8"]}},"overflow":"BIND_OVERFLOW_SKIP"}`; got != want {
		t.Errorf("sent %s, want %s", got, want)
	}
	f.ctl(t, "", "binds").want(t, 0, "SOURCE   DESTINATION  TYPES           OVERFLOW  COPIED  SKIPPED  PROBLEM\n"+
		"/events  /audit       created,failed  skip           5        2  it is full\\x1b\n", "")
	f.ctl(t, "", "binds", "ev*", "-o", "json").want(t, 0, "{\"binds\":[\n"+
		`{"source":"/events","destination":"/audit","selector":"7,8","selector_names":"created,failed","overflow":"skip","copied_total":5,"skipped_total":2,"problem":"it is full\u001b"}`+"\n]}\n", "")
	f.ctl(t, "", "binds", "-o", "jsonl").want(t, 0,
		`{"source":"/events","destination":"/audit","selector":"7,8","selector_names":"created,failed","overflow":"skip","copied_total":5,"skipped_total":2,"problem":"it is full\u001b"}`+"\n", "")
	r := f.ctl(t, "", "stat", "events")
	if want := "  to /audit           created,failed, skipped where it finds no room; 5 copied, 2 skipped, the last because: it is full\\x1b\n"; !strings.Contains(r.out, want) {
		t.Errorf("%q is missing in:\n%s", want, r.out)
	}
	f.ctl(t, "", "ls", "events", "--columns", "name,binds", "--no-headers").want(t, 0, "/events  /audit (2 skipped)\n", "")
	f.ctl(t, "", "unbind", "events", "audit").want(t, 0, "", "/events hands nothing on to /audit any more\n")
	f.ctl(t, "", "unbind", "events", "audit").want(t, 0, "", "there was no bind of /events to /audit: nothing was changed\n")
	f.ctl(t, "", "bind", "events", "none").want(t, 3, "", "ipcctl: /events: there is no queue of this name; create it first\n")
	f.ctl(t, "", "bind", "events", "audit", "--type", "creatd").want(t, 2, "", "ipcctl: --type: type \"creatd\": it must be a positive number or one of the queue's names: created, failed; did you mean created?\n")
}

func TestTapShowsWhatArrivesInSeveralQueuesAndWhatWasLeftOut(t *testing.T) {
	f := startFake(t)
	f.add("/a").put(&ipcdv1.Message{Type: 7, Body: []byte("one\x1b")})
	r := f.ctl(t, "", "tap", "a", "-n", "1", "--type", "created", "--header", "k=v")
	if r.exit != 0 || !strings.HasPrefix(r.out, "#1  ready  type created (7)  sent ") || !strings.HasSuffix(r.out, "    one\\x1b\n") || r.err != "tapping /a\nleft out 3 messages of /a: they came faster than they were shown\n" {
		t.Errorf("exit %d, stdout:\n%sstderr:\n%s", r.exit, r.out, r.err)
	}
	if got := seen[*ipcdv1.TapRequest](t, f); got.Filter.GetSelector().GetType() != 7 || string(got.Filter.Headers["k"]) != "v" || got.MaxBodyBytes != textBodyBytes {
		t.Errorf("sent %v", got)
	}
	f.add("/b", "two")
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	var errOut bytes.Buffer
	out := &countingWriter{after: 2, do: interrupt}
	exit := f.run(ctx, streams{in: strings.NewReader(""), out: out, err: &errOut}, "tap", "?", "-o", "jsonl")
	if exit != 0 || !strings.Contains(out.got.String(), `"queue":"/a"`) || !strings.Contains(out.got.String(), `"queue":"/b"`) {
		t.Errorf("exit %d, stdout:\n%sstderr:\n%s", exit, out.got.String(), errOut.String())
	}
	f.ctl(t, "", "tap", "a", "none").want(t, 3, "", "ipcctl: /none: there is no queue of this name; create it first\n")
}

func TestPeekFollowsSeveralQueues(t *testing.T) {
	f := startFake(t)
	f.add("/a", "one")
	f.add("/b", "two")
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	var errOut bytes.Buffer
	out := &countingWriter{after: 2, do: interrupt}
	exit := f.run(ctx, streams{in: strings.NewReader(""), out: out, err: &errOut}, "peek", "a", "b", "--follow", "--header", "k=v")
	if exit != 0 || !strings.Contains(out.got.String(), "/a #1  ready") || !strings.Contains(out.got.String(), "/b #1  ready") || errOut.String() != "" {
		t.Errorf("exit %d, stdout:\n%sstderr:\n%s", exit, out.got.String(), errOut.String())
	}
	f.ctl(t, "", "peek", "a", "none", "b", "-o", "raw").want(t, 3, "one\ntwo\n", "ipcctl: /none: there is no queue of this name; create it first\n")
}

func TestRecvTakesFromSeveralQueues(t *testing.T) {
	f := startFake(t)
	f.add("/a", "one")
	f.add("/b", "two")
	r := f.ctl(t, "", "recv", "a", "b", "-n", "5", "--type", "created", "-o", "raw")
	if r.exit != 0 || r.out != "one\ntwo\n" {
		t.Errorf("exit %d, stdout:\n%sstderr:\n%s", r.exit, r.out, r.err)
	}
	f.ctl(t, "", "recv", "a", "b").want(t, 6, "", "ipcctl: no message is ready in 2 queues; --wait 5s waits for one\n")
	f.queues["/b"].info.Settings.TypeNames = map[string]int64{"created": 9}
	f.ctl(t, "", "recv", "a", "b", "--type", "created").want(t, 2, "", "ipcctl: --type: \"created\" means 7 in /a and 9 in /b: write numbers\n")
}
