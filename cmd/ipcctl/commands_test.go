package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// The golden texts below are promises: fields of json may be added, never renamed or removed.

const jobsJSON = `{"name":"/jobs","id":1,"paused":false,"create_time":"2026-01-02T03:04:05.000000006Z",` +
	`"settings":{"max_messages":1000,"max_bytes":1073741824,"max_message_size":64,"lease":"30s","max_attempts":16,` +
	`"dead_letter_queue":"","dead_letter_expired":false,"overflow":"reject","durability":"memory","backoff":{"initial":"0s","max":"0s"},` +
	`"dedup_window":"120s","max_dedup_ids":1000000,"type_names":{"created":7,"failed":8},` +
	`"mqueue":{"mode":"auto","max_messages":0,"message_size":0,"type":1,"type_prefix":false,"out_selector":"any"},` +
	`"mode":"0600","owner_uid":4000000001,"group_gid":4000000002},` +
	`"stats":{"ready":2,"delayed":0,"leased":0,"buried":0,"uncommitted":0,"bytes":6,"oldest_age":"1.5s","receivers":0,"blocked_senders":0,` +
	`"send_rate":0,"delivery_rate":0,"ack_rate":0,"sent_total":2,"delivered_total":0,"consumed_total":0,"nacked_total":0,"lease_expired_total":0,` +
	`"ttl_dropped_total":0,"overflow_dropped_total":0,"dead_lettered_total":0,"purged_total":0,"duplicates_total":0,"peeked_total":0,"dedup_ids":0,"moved_total":0,"taps":0},` +
	`"kernel_queues":[{"direction":"in","name":"/jobs","open":false,"problem":"queues_max is 256","max_messages":10,"message_size":64,"current_messages":0,` +
	`"passed_total":0,"skipped_total":0,"owner_uid":0,"group_gid":0,"mode":"0200"}],"binds":[],"temporary":false,"schema_version":0}`

func jobs(t *testing.T) *fake {
	f := startFake(t)
	q := f.add("/jobs", "one", "two")
	q.info.Stats.OldestAge = durationOf(1500 * time.Millisecond)
	q.info.KernelQueues = []*ipcdv1.KernelQueueStatus{{Direction: "in", Name: "/jobs", Problem: "queues_max is 256", MaxMessages: 10, MessageSize: 64, Mode: 0o200}}
	return f
}

func TestLsShowsQueuesAsATable(t *testing.T) {
	f := jobs(t)
	f.add("/mail").info.Paused = true
	f.ctl(t, "", "ls").want(t, 0, ""+
		"NAME   STATUS  READY  DELAYED  LEASED  BURIED  OLDEST  IN/S  OUT/S  RECEIVERS  MQUEUE\n"+
		"/jobs  ok          2        0       0       0    1.5s     0      0          0  in closed: queues_max is 256\n"+
		"/mail  paused      0        0       0       0       -     0      0          0  -\n", "")
	f.ctl(t, "", "ls", "jo*", "-o", "name").want(t, 0, "/jobs\n", "")
	f.ctl(t, "", "ls", "--sort", "ready", "--reverse", "--columns", "name,ready", "--no-headers").want(t, 0, "/jobs  2\n/mail  0\n", "")
	f.ctl(t, "", "ls", "nothing*").want(t, 0, "", "")
}

func TestLsWritesJSONThatStaysAsItIs(t *testing.T) {
	f := jobs(t)
	f.ctl(t, "", "ls", "-o", "json").want(t, 0, "{\"queues\":[\n"+jobsJSON+"\n]}\n", "")
	f.ctl(t, "", "stat", "jobs", "-o", "json").want(t, 0, "{\"queues\":[\n"+jobsJSON+"\n]}\n", "")
	f.ctl(t, "", "ls", "x", "-o", "json").want(t, 0, "{\"queues\":[]}\n", "")
}

func TestYAMLSaysWhatJSONSays(t *testing.T) {
	f := jobs(t)
	f.queues["/jobs"].info.KernelQueues[0].Problem = "control \x1b[0m \u202e: # 'quoted'\nline"
	r := f.ctl(t, "", "stat", "/jobs", "-o", "yaml")
	if escapeText(r.out, "") != r.out {
		t.Errorf("the YAML acts on a terminal: %q", r.out)
	}
	var fromYAML any
	if err := yaml.Unmarshal([]byte(r.out), &fromYAML); err != nil {
		t.Fatalf("%v in:\n%s", err, r.out)
	}
	yamlAgain, _ := json.Marshal(fromYAML)
	var fromJSON any
	if err := json.Unmarshal([]byte(f.ctl(t, "", "stat", "/jobs", "-o", "json").out), &fromJSON); err != nil {
		t.Fatal(err)
	}
	jsonAgain, _ := json.Marshal(fromJSON)
	if !bytes.Equal(yamlAgain, jsonAgain) {
		t.Errorf("YAML says\n%s\nJSON says\n%s", yamlAgain, jsonAgain)
	}
}

func TestStatShowsSettingsAndKernelQueues(t *testing.T) {
	f := jobs(t)
	r := f.ctl(t, "", "stat", "/jobs")
	for _, want := range []string{
		"/jobs\n", "ready               2, the oldest sent 1.5s ago", "all                 2 of 1000", "bytes               6B of 1GiB",
		"lease               30s", "type names          created=7 failed=8", "dead letters to     none, they are buried", "mqueue              auto, type 1",
		"in                  /jobs, closed", "queues_max is 256", "owner               4000000001:4000000002 0600",
	} {
		if !strings.Contains(r.out, want) {
			t.Errorf("%q is missing in:\n%s", want, r.out)
		}
	}
}

func TestSeveralQueuesGoOnAfterAFailureAndExitWithTheWorst(t *testing.T) {
	f := jobs(t)
	f.add("/last")
	f.failWith["/locked"] = refuse(reason.AccessDenied, "the mode is 0600")
	f.ctl(t, "", "pause", "/none", "locked", "last").want(t, 5, "",
		"ipcctl: /none: there is no queue of this name; create it first\nipcctl: /locked: the mode is 0600\npaused /last\n")
	if r := f.ctl(t, "", "stat", "/none", "/jobs", "-o", "json"); r.exit != 3 || !strings.Contains(r.out, jobsJSON) {
		t.Errorf("exit %d, stdout:\n%s", r.exit, r.out)
	}
}

func TestCreateSaysWhetherTheQueueIsNew(t *testing.T) {
	f := startFake(t)
	f.ctl(t, "", "create", "jobs").want(t, 0, "", "created /jobs\n")
	f.ctl(t, "", "create", "/jobs").want(t, 0, "", "/jobs exists, with the same settings\n")
}

func TestCreateSendsEverySetting(t *testing.T) {
	f := startFake(t)
	r := f.ctl(t, "", "create", "/q", "--max-messages", "10", "--max-bytes", "1MiB", "--max-message-size", "64KiB", "--lease", "1m", "--max-attempts", "5",
		"--dead-letter", "dead", "--dead-letter-expired", "--overflow", "drop-oldest", "--durability", "memory", "--backoff", "1s", "--dedup-window", "0",
		"--max-dedup-ids", "9", "--type-name", "a=1", "--type-name", "b=2,c=3", "--mqueue", "both", "--mqueue-type", "4", "--mqueue-type-prefix",
		"--mqueue-messages", "8", "--mqueue-size", "1KiB", "--mqueue-out-type", "a,c", "--mode", "0660", "--owner", "12", "--group", "34", "--exclusive")
	r.want(t, 0, "", "created /q\n")
	got := seen[*ipcdv1.CreateQueueRequest](t, f)
	want := `{"name":"/q","settings":{"maxMessages":"10","maxBytes":"1048576","maxMessageSize":"65536","lease":"60s","maxAttempts":5,` +
		`"deadLetterQueue":"/dead","deadLetterExpired":true,"overflow":"OVERFLOW_POLICY_DROP_OLDEST","durability":"DURABILITY_MEMORY",` +
		`"backoff":{"initial":"1s","max":"1s"},"dedupWindow":"0s","maxDedupIds":"9","typeNames":{"a":"1","b":"2","c":"3"},` +
		`"mqueue":{"mode":"KERNEL_QUEUE_MODE_BOTH","maxMessages":8,"messageSize":1024,"type":"4","typePrefix":true,"outSelector":{"types":{"types":["1","3"]}}},` +
		`"mode":432,"ownerUid":12,"groupGid":34},"exclusive":true}`
	if protoJSON(t, got) != want {
		t.Errorf("sent\n%s\nwant\n%s", protoJSON(t, got), want)
	}
}

func TestUpdateSendsOnlyWhatIsGiven(t *testing.T) {
	f := jobs(t)
	f.ctl(t, "", "update", "jobs", "--lease", "1m", "--dead-letter", "", "--mqueue-out-type", "not:failed").want(t, 0, "", "updated /jobs\nkernel queue /jobs (in): queues_max is 256\n")
	got := seen[*ipcdv1.UpdateQueueRequest](t, f)
	if mask := strings.Join(got.UpdateMask.Paths, ","); mask != "lease,dead_letter_queue,mqueue.out_selector" {
		t.Errorf("the mask is %s", mask)
	}
	if got.Settings.GetLease().AsDuration() != time.Minute || got.Settings.GetMqueue().GetOutSelector().GetNotType() != 8 {
		t.Errorf("sent %v", got)
	}
	if r := f.ctl(t, "", "update", "jobs"); r.exit != 2 {
		t.Errorf("an update of nothing exits %d", r.exit)
	}
}

func TestRemovingNeedsForceAwayFromATerminal(t *testing.T) {
	f := jobs(t)
	f.ctl(t, "", "rm", "jobs").want(t, 2, "", "ipcctl: refusing to delete /jobs with 2 messages without --force, for there is no terminal to ask on\n")
	f.ctl(t, "", "purge", "jobs").want(t, 2, "", "ipcctl: refusing to remove 2 messages from /jobs without --force, for there is no terminal to ask on\n")
	f.ctl(t, "", "rm", "jobs", "--dry-run").want(t, 0, "would delete /jobs with 2 messages\n", "")
	f.ctl(t, "", "purge", "jobs", "--dry-run").want(t, 0, "would remove 2 messages from /jobs\n", "")
	if got := f.states("/jobs"); got != "1 ready, 2 ready" {
		t.Errorf("left: %s", got)
	}
	f.ctl(t, "", "purge", "jobs", "--force").want(t, 0, "", "removed 2 messages from /jobs\n")
	f.ctl(t, "", "rm", "jobs", "--force").want(t, 0, "", "deleted /jobs with 0 messages\n")
	f.ctl(t, "", "rm", "jobs", "--force").want(t, 3, "", "ipcctl: /jobs: there is no queue of this name; create it first\n")
}

func TestRemovingAsksOnATerminal(t *testing.T) {
	f := jobs(t)
	ask := func(answer string) (string, int) {
		var errOut bytes.Buffer
		exit := f.run(t.Context(), streams{in: strings.NewReader(answer), out: io.Discard, err: &errOut, inTTY: true, eTTY: true}, "rm", "/jobs")
		return errOut.String(), exit
	}
	for _, answer := range []string{"n\n", "\n", "", "yesterday\n"} {
		if said, exit := ask(answer); exit != 1 || said != "Delete /jobs with 2 messages? [y/N] left alone\n" || f.queues["/jobs"] == nil {
			t.Errorf("answer %q: exit %d, said %q", answer, exit, said)
		}
	}
	if said, exit := ask("y\n"); exit != 0 || f.queues["/jobs"] != nil {
		t.Errorf("exit %d, said %q", exit, said)
	}
}

func TestFiltersReachTheDaemon(t *testing.T) {
	f := jobs(t)
	filters := []string{"--type", "created,failed", "--seq", "3-9", "--older-than", "1h", "--header", "k=v"}
	want := `{"selector":{"types":{"types":["7","8"]}},"states":["MESSAGE_STATE_LEASED","MESSAGE_STATE_BURIED"],"minSequence":"3","maxSequence":"9","olderThan":"3600s","headers":{"k":"dg=="}}`
	withStates := append(filters, "--state", "leased,buried")
	f.ctl(t, "", append([]string{"peek", "jobs"}, withStates...)...)
	if got := protoJSON(t, seen[*ipcdv1.PeekRequest](t, f).Filter); got != want {
		t.Errorf("peek sent %s", got)
	}
	f.ctl(t, "", append([]string{"purge", "jobs", "--force", "--limit", "5"}, withStates...)...)
	if got := seen[*ipcdv1.PurgeQueueRequest](t, f); protoJSON(t, got.Filter) != want {
		t.Errorf("purge sent %v", got)
	}
	f.ctl(t, "", append([]string{"kick", "jobs"}, filters...)...).want(t, 0, "", "kicked 0 messages in /jobs\n")
	if got := seen[*ipcdv1.KickMessagesRequest](t, f).Filter; got.GetMinSequence() != 3 || got.GetHeaders()["k"] == nil {
		t.Errorf("kick sent %v", got)
	}
}

func TestInfoAndVersion(t *testing.T) {
	f := startFake(t)
	f.ctl(t, "", "info", "-o", "json").want(t, 0, `{
  "version": "v1.2.3",
  "instance": "i1",
  "pid": 42,
  "start_time": "2026-01-02T03:04:05.000000006Z",
  "state_dir": "/var/lib/ipcd",
  "addresses": [
    "unix:///run/ipcd/ipcd.sock"
  ],
  "queues": 2,
  "messages": 3,
  "bytes": 4096,
  "go_version": "go1.26",
  "caller": {
    "kind": "unix",
    "uid": 4000000001,
    "gid": 4000000002,
    "groups": [],
    "pid": 7,
    "admin": true
  },
  "storage": {
    "durable": true,
    "segments": 3,
    "used_bytes": 67108864,
    "disk_bytes": 100663296,
    "live_bytes": 1024,
    "memory_bytes": 2048,
    "commits_total": 4,
    "sync_time_total": "0.001s",
    "sync_time_max": "0.0005s",
    "full": true,
    "damaged": 2,
    "damaged_queues": [
      "/bad"
    ],
    "damage": ""
  },
  "attach_socket": "/run/ipcd/attach.sock",
  "rings": 2,
  "ring_memory_bytes": 8192,
  "temporary_queues": 1,
  "late_replies_total": 4
}
`, "")
	r := f.ctl(t, "", "info")
	for _, want := range []string{"takes you for       4000000001:4000000002 (uid 4000000001, gid 4000000002), an admin\n", "rings               2, their members take 8KiB of memory\n", "64MiB in 3 segments, 1KiB of it needed; 96MiB on disk\n",
		"  4, a sync took 250µs on average, 500µs at most\n", "disk full  ", "2 queues read-only /bad\n", "attach to rings at  /run/ipcd/attach.sock\n", "temporary queues    1; 4 replies came too late, for queues that had ended\n"} {
		if r.exit != 0 || !strings.Contains(r.out, want) {
			t.Errorf("exit %d, no %q in stdout:\n%s", r.exit, want, r.out)
		}
	}
	if r := f.ctl(t, "", "version"); r.exit != 0 || !strings.HasPrefix(r.out, "ipcctl dev go") {
		t.Errorf("exit %d, stdout:\n%s", r.exit, r.out)
	}
}

func TestUsageErrorsAreOneLineWithASuggestion(t *testing.T) {
	f := startFake(t)
	for _, c := range []struct{ args, want string }{
		{"crate /x", `ipcctl: unknown command "crate"; did you mean create?; see ipcctl --help`},
		{"ls --srot name", `ipcctl: unknown flag "--srot"; did you mean --sort?; see ipcctl ls --help`},
		{"ls -q", `ipcctl: unknown flag "-q"; see ipcctl ls --help`},
		{"create /x --lease 30", `ipcctl: --lease: "30" is no duration: write 500ms, 30s, 5m, 1h30m or 2d; see ipcctl create --help`},
		{"create", `ipcctl: name a queue, as in: ipcctl create /jobs; see ipcctl create --help`},
		{"export /a /b", `ipcctl: export takes one queue, "/b" is too much; see ipcctl export --help`},
		{"move /a", `ipcctl: name two queues, source and destination, as in: ipcctl move /jobs /jobs.later --type failed; see ipcctl move --help`},
		{"bind /a /b /c", `ipcctl: bind takes two queues, "/c" is too much; see ipcctl bind --help`},
		{"ls --watch 1s", `ipcctl: "1s" is taken for a pattern of names: write --watch=1s`},
		{"ls --watch=1ms", `ipcctl: --watch: "1ms" is too often: at least 100ms; see ipcctl ls --help`},
		{"request /a", `ipcctl: give a payload, or - to read it from stdin`},
		{"export /a --resume", `ipcctl: --resume needs --file: it continues what is in a file`},
		{"import /a --from 0", `ipcctl: --from: "0" is no place: write the number of a message, from 1, or what an interrupted import said; see ipcctl import --help`},
		{"send /a", `ipcctl: give a payload, or - to read it from stdin, or --lines for one message a line`},
		{"send /a b c", `ipcctl: one payload at a time, "c" is too much: quote a payload with spaces, or use --lines`},
		{"recv /a --ack --lease 1s", `ipcctl: --ack and --lease exclude each other: what is consumed is not leased`},
		{"peek /a --type 1,-2", `ipcctl: --type: type "-2": it must be a positive number`},
		{"ack", `ipcctl: give a receipt, as recv shows it; see ipcctl ack --help`},
	} {
		if r := f.ctl(t, "", strings.Fields(c.args)...); r.exit != 2 || r.out != "" || r.err != c.want+"\n" {
			t.Errorf("%s: exit %d, stdout %q, stderr:\n%s\nwant:\n%s", c.args, r.exit, r.out, r.err, c.want)
		}
	}
}

func TestErrorsNeverActOnATerminal(t *testing.T) {
	f := startFake(t)
	f.failWith["/x"] = refuse(reason.QueueFull, "evil \x1b[2J\u202e\nipcctl: forged")
	for _, args := range [][]string{{"stat", "/x"}, {"\x1b[2J"}, {"ls", "--\x1b[2J"}, {"create", "/x", "--lease", "\x1b\n"}, {"stat", "/\x1b\n"}} {
		r := f.ctl(t, "", args...)
		if r.exit == 0 || strings.Count(r.err, "\n") != 1 || escapeText(r.err, "") != r.err {
			t.Errorf("%q: exit %d, stderr %q", args, r.exit, r.err)
		}
	}
}

func TestAnUnreachableDaemonIsNamedWithWhatToDo(t *testing.T) {
	f := &fake{address: t.TempDir() + "/none.sock"}
	r := f.ctl(t, "", "ls")
	if want := "ipcctl: no ipcd answers at unix://" + f.address + " (connect: no such file or directory); start one with ipcd or systemctl start ipcd, or name another with --address or IPCD_ADDRESS\n"; r.exit != 4 || r.err != want {
		t.Errorf("exit %d, stderr %q, want %q", r.exit, r.err, want)
	}
}

// brokenPipe takes so many writes and then behaves as a pipe whose reader went away.
type brokenPipe struct {
	got    bytes.Buffer
	writes int
}

func (b *brokenPipe) Write(p []byte) (int, error) {
	if b.writes == 0 {
		return 0, syscall.EPIPE
	}
	b.writes--
	return b.got.Write(p)
}

func TestABrokenPipeEndsQuietly(t *testing.T) {
	f := jobs(t)
	for _, args := range [][]string{{"ls"}, {"peek", "/jobs"}, {"stat", "/jobs"}, {"rm", "/jobs", "--dry-run"}, {"completion", "bash"}} {
		var errOut bytes.Buffer
		if exit := f.run(t.Context(), streams{in: strings.NewReader(""), out: &brokenPipe{}, err: &errOut}, args...); exit != 0 || errOut.Len() > 0 {
			t.Errorf("%v: exit %d, stderr %q", args, exit, errOut.String())
		}
	}
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

func TestOutputThatCannotBeWrittenIsAFailure(t *testing.T) {
	f := jobs(t)
	var errOut bytes.Buffer
	exit := f.run(t.Context(), streams{in: strings.NewReader(""), out: fullDisk{}, err: &errOut}, "ls")
	want := "ipcctl: cannot write the output: no space left on device\n"
	if exit != 1 || errOut.String() != want {
		t.Errorf("exit %d, stderr %q", exit, errOut.String())
	}
	f.add("/some", "a")
	errOut.Reset()
	exit = f.run(t.Context(), streams{in: strings.NewReader(""), out: fullDisk{}, err: &errOut}, "export", "some")
	if exit != 1 || errOut.String() != want { // and nothing is said to have been exported
		t.Errorf("export: exit %d, stderr %q", exit, errOut.String())
	}
}

type panicking struct{}

func (panicking) Write([]byte) (int, error) { panic("a defect") }

func TestADefectExits70(t *testing.T) {
	f := jobs(t)
	var errOut bytes.Buffer
	exit := f.run(t.Context(), streams{in: strings.NewReader(""), out: panicking{}, err: &errOut}, "ls")
	if exit != 70 || !strings.HasPrefix(errOut.String(), "ipcctl: internal error: a defect\n") {
		t.Errorf("exit %d, stderr %s", exit, errOut.String())
	}
}

func TestWatchPrintsAgainAndEndsQuietlyWhenInterrupted(t *testing.T) {
	f := jobs(t)
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	out := &countingWriter{after: 2, do: interrupt}
	var errOut bytes.Buffer
	exit := f.run(ctx, streams{in: strings.NewReader(""), out: out, err: &errOut}, "ls", "--watch", "--interval", "100ms", "-o", "name")
	if exit != 0 || out.got.String() != "/jobs\n\n/jobs\n" || errOut.Len() > 0 {
		t.Errorf("exit %d, stdout %q, stderr %q", exit, out.got.String(), errOut.String())
	}
}

// countingWriter does something once so many writes have been made.
type countingWriter struct {
	got   bytes.Buffer
	after int
	do    func()
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.got.Write(p)
	if c.after--; c.after == 0 {
		c.do()
	}
	return n, err
}

func TestRedrawingFitsTheTerminal(t *testing.T) {
	a := &app{streams: streams{size: func() (int, int) { return 80, 4 }}}
	if got, want := a.redrawn("1\n2\n3\n4\n5\n"), "\x1b[H1\x1b[K\n2\x1b[K\n… 3 more lines\x1b[K\n\x1b[J"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestCompletionKnowsQueuesAndTypes(t *testing.T) {
	f := jobs(t)
	f.add("/mail")
	for _, c := range []struct{ args, want string }{
		{"stat /j", "/jobs\n:4\n"}, {"stat m", "mail\n:4\n"}, {"stat /jobs /", "/mail\n:4\n"}, {"peek /jobs --type c", "created\n:4\n"},
		{"schema set /jobs x.proto --type c", "created\n:4\n"}, {"tap /jobs --type created,f", "created,failed\n:4\n"}, {"work /jobs --type not:c", "not:created\n:4\n"}, {"move /jobs m", "mail\n:4\n"}, {"bind /jobs /mail /", ":4\n"},
		{"peek /jobs --state ", "all\nready\ndelayed\nleased\nburied\n:4\n"}, {"recv /jobs -o ", "text\njson\njsonl\nraw\nhex\n:4\n"},
	} {
		if r := f.ctl(t, "", append([]string{"__complete"}, strings.Split(c.args, " ")...)...); r.exit != 0 || r.out != c.want {
			t.Errorf("%s: exit %d, stdout %q, want %q; stderr %q", c.args, r.exit, r.out, c.want, r.err)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if r := f.ctl(t, "", "completion", shell); r.exit != 0 || !strings.Contains(r.out, "__complete") {
			t.Errorf("%s: exit %d", shell, r.exit)
		}
	}
}

// A variable that a script forgot to set must not turn a filter into everything.
func TestAnEmptyFilterIsAUsageErrorAndNotEverything(t *testing.T) {
	f := jobs(t)
	f.add("/mail")
	before := len(f.plain("/jobs"))
	for _, args := range []string{
		"purge /jobs --force --type", "purge /jobs --force --seq", "purge /jobs --force --header", "purge /jobs --force --state", "purge /jobs --force --older-than",
		"move /jobs /mail --type", "redrive /jobs --type", "kick /jobs --type", "peek /jobs --type", "export /jobs --type", "bind /jobs /mail --type",
		"recv /jobs --type", "tap /jobs --type", "tap /jobs --header", "send /jobs x --type", "request /jobs x --type", "update /jobs --mqueue-out-type",
	} {
		for _, empty := range []string{"", " "} {
			r := f.ctl(t, "", append(strings.Fields("--timeout 10s "+args), empty)...)
			if r.exit != 2 || r.out != "" || !strings.Contains(r.err, "ipcctl: ") {
				t.Errorf("%s %q: exit %d, stdout %q, stderr %q", args, empty, r.exit, r.out, r.err)
			}
		}
	}
	if r := f.ctl(t, "", "work", "/jobs", "--timeout", "10s", "--type", "", "--", "true"); r.exit != 2 {
		t.Errorf("work: exit %d, stderr %q", r.exit, r.err)
	}
	if after := len(f.plain("/jobs")); after != before {
		t.Errorf("%d messages are there, want %d", after, before)
	}
	f.ctl(t, "", "purge", "/jobs", "--type", "", "--force").want(t, 2, "", "ipcctl: --type: \"\" selects nothing: write any for all types, or leave out the flag; see ipcctl purge --help\n")
}

func TestEveryCommandHasHelpWithExamples(t *testing.T) {
	for _, c := range newRoot(&app{}).Commands() {
		if c.Name() != "help" && !c.Hidden && (c.Short == "" || c.Example == "" || c.GroupID == "") {
			t.Errorf("%s lacks a word, an example or a group", c.Name())
		}
		for _, c := range c.Commands() {
			if c.Short == "" || c.Example == "" || c.Long == "" {
				t.Errorf("%s lacks a word or an example", c.CommandPath())
			}
		}
	}
}
