package main

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// The golden texts below are promises: fields of json may be added, never renamed or removed.

const ticksJSON = `{"name":"/ticks","ring_id":1,"create_time":"2026-01-02T03:04:05.000000006Z",` +
	`"settings":{"capacity_bytes":65536,"max_message_bytes":64,"policy":"overwrite","mode":"0660","owner_uid":4000000001,"group_gid":4000000002,` +
	`"retain_bytes":65536,"stall":"1s"},"memory_bytes":73728,"epoch":9,` +
	`"lanes":[{"lane_id":3,"slot":1,"uid":4000000003,"pid":77,"daemon":false,"join_time":"2026-01-02T03:04:05.000000006Z","ended":false,"position":4096,"oldest_position":1024,` +
	`"sequence":64,"publish_rate":12.5,"wakes_total":5,"wakes_elided_total":59,"blocked":true,"blocks_total":2,"blocked_time_total":"1.5s","evictions_total":1,` +
	`"backstops_total":6,"known_epoch":8,"slowest_consumer_id":8,"slowest_lag_messages":4,"memory_bytes":73728,"unreadable":false},` +
	`{"lane_id":2,"slot":0,"uid":4000000001,"pid":1,"daemon":true,"join_time":"2026-01-02T03:04:05.000000006Z","ended":true,"position":0,"oldest_position":0,` +
	`"sequence":0,"publish_rate":0,"wakes_total":0,"wakes_elided_total":0,"blocked":false,"blocks_total":0,"blocked_time_total":"0s","evictions_total":0,` +
	`"backstops_total":0,"known_epoch":0,"slowest_consumer_id":0,"slowest_lag_messages":0,"memory_bytes":0,"unreadable":true}],` +
	`"consumers":[{"consumer_id":8,"slot":2,"uid":4000000003,"pid":78,"daemon":false,"join_time":"2026-01-02T03:04:05.000000006Z","lossless":true,"parked":true,` +
	`"received_total":60,"lost_total":3,"receive_rate":11,"parks_total":7,"backstops_total":1,"lag_messages":4,` +
	`"cursors":[{"lane_id":3,"position":3840,"sequence":60,"lag_messages":4,"lag_bytes":256,"lost_total":3,"evicted":true}],` +
	`"anonymous":true,"corrupt_lanes_total":2,"unreadable":false}]}`

// ticks is a ring with members that have everything.
func ticks(t *testing.T) *fake {
	f := startFake(t)
	joined := timestamppb.New(sentAt)
	info := f.addRing("/ticks").info
	info.Lanes = []*ipcdv1.RingLane{
		{LaneId: 3, Slot: 1, Uid: 4000000003, Pid: 77, JoinTime: joined, Position: 4096, OldestPosition: 1024, Sequence: 64, PublishRate: 12.5,
			WakesTotal: 5, WakesElidedTotal: 59, Blocked: true, BlocksTotal: 2, BlockedTimeTotal: durationpb.New(1500 * time.Millisecond), EvictionsTotal: 1,
			BackstopsTotal: 6, KnownEpoch: 8, SlowestConsumerId: 8, SlowestLagMessages: 4, MemoryBytes: 73728},
		{LaneId: 2, Uid: 4000000001, Pid: 1, Daemon: true, JoinTime: joined, Ended: true, Unreadable: true},
	}
	info.Consumers = []*ipcdv1.RingConsumer{{
		ConsumerId: 8, Slot: 2, Uid: 4000000003, Pid: 78, JoinTime: joined, Lossless: true, Parked: true, ReceivedTotal: 60, LostTotal: 3,
		ReceiveRate: 11, ParksTotal: 7, BackstopsTotal: 1, LagMessages: 4, Anonymous: true, CorruptLanesTotal: 2,
		Cursors: []*ipcdv1.RingCursor{{LaneId: 3, Position: 3840, Sequence: 60, LagMessages: 4, LagBytes: 256, LostTotal: 3, Evicted: true}},
	}}
	return f
}

func TestRingLsShowsRingsAsATable(t *testing.T) {
	f := ticks(t)
	f.addRing("/audit").info.Settings.Policy = ipcdv1.RingPolicy_RING_POLICY_LOSSLESS
	f.ctl(t, "", "ring", "ls").want(t, 0, ""+
		"NAME    POLICY     CAPACITY  PRODUCERS  CONSUMERS  IN/S  LAG  LOST  MEMORY  MODE  OWNER\n"+
		"/audit  lossless      64KiB          0          0     0    0     0   72KiB  0660  4000000001\n"+
		"/ticks  overwrite     64KiB          1          1  12.5    4     3   72KiB  0660  4000000001\n", "")
	f.ctl(t, "", "ring", "ls", "ti*", "-o", "name").want(t, 0, "/ticks\n", "")
	f.ctl(t, "", "ring", "ls", "--sort", "lag", "--reverse", "--columns", "name,ended,blocked", "--no-headers").want(t, 0, "/ticks  1  1\n/audit  0  0\n", "")
	f.ctl(t, "", "ring", "ls", "none*").want(t, 0, "", "")
	f.ctl(t, "", "ring", "ls", "[").want(t, 2, "", "ipcctl: \"[\" is no pattern: write * for any text, ? for one character, [a-z] for some\n")
	f.ctl(t, "", "ring", "ls", "a", "b").want(t, 2, "", "ipcctl: ring ls takes one pattern, \"b\" is too much; quote it so that the shell leaves it alone: ipcctl ring ls 'jobs*'\n")
}

func TestRingsAreShownAsJSONThatStaysAsItIs(t *testing.T) {
	f := ticks(t)
	f.ctl(t, "", "ring", "ls", "-o", "json").want(t, 0, "{\"rings\":[\n"+ticksJSON+"\n]}\n", "")
	f.ctl(t, "", "ring", "stat", "ticks", "-o", "json").want(t, 0, "{\"rings\":[\n"+ticksJSON+"\n]}\n", "")
	f.ctl(t, "", "ring", "ls", "x", "-o", "json").want(t, 0, "{\"rings\":[]}\n", "")
	if r := f.ctl(t, "", "ring", "stat", "ticks", "-o", "yaml"); r.exit != 0 || !strings.Contains(r.out, "rings:\n- name: /ticks\n") || !strings.Contains(r.out, "lag_bytes: 256\n") {
		t.Errorf("exit %d, stdout:\n%s", r.exit, r.out)
	}
}

func TestRingStatShowsLanesAndConsumers(t *testing.T) {
	f := ticks(t)
	r := f.ctl(t, "", "ring", "stat", "/ticks")
	out := strings.Join(strings.FieldsFunc(r.out, func(c rune) bool { return c == ' ' }), " ")
	for _, want := range []string{
		"/ticks\n id 1\n", " policy overwrite\n capacity 64KiB a lane, messages of up to 64 bytes\n", " owner 4000000001:4000000002 0660\n",
		"Lanes\nLANE PROCESS USER STATE FOR MESSAGES IN/S POSITION OLDEST LAG WAKES SPARED BLOCKS BLOCKED-FOR EVICTED\n",
		" 3 77 4000000003 blocked ", " 64 12.5 4096 1024 4 5 59 2 1.5s 1\n", " 2 ipcd 4000000001 unreadable ",
		"Consumers\nCONSUMER PROCESS USER STATE FOR POLICY RECEIVED OUT/S LAG LOST PARKS FOUND\n", " 8 78 - evicted ", " lossless 60 11.0 4 3 7 1\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
	if r.exit != 0 || r.err != "" || strings.Contains(r.out, "Places") {
		t.Errorf("exit %d, stderr %q, stdout:\n%s", r.exit, r.err, r.out)
	}
	r = f.ctl(t, "", "ring", "stat", "/ticks", "-o", "wide")
	if !strings.HasSuffix(r.out, "Places\nCONSUMER  LANE  POSITION  SEQUENCE  LAG  LAG-BYTES  LOST  EVICTED\n       8     3      3840        60    4       256B     3  yes\n") {
		t.Errorf("stdout:\n%s", r.out)
	}
	f.addRing("/empty")
	r = f.ctl(t, "", "ring", "stat", "/none", "/empty")
	if r.exit != 3 || !strings.HasSuffix(r.out, "Lanes: none\nConsumers: none\n") || r.err != "ipcctl: /none: there is no such ring\n" {
		t.Errorf("exit %d, stderr %q, stdout:\n%s", r.exit, r.err, r.out)
	}
}

func TestRingStatWatchesUntilItIsInterrupted(t *testing.T) {
	f := ticks(t)
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	out := &countingWriter{after: 2, do: interrupt}
	var errOut bytes.Buffer
	exit := f.run(ctx, streams{in: strings.NewReader(""), out: out, err: &errOut}, "ring", "stat", "ticks", "--watch", "--interval", "100ms", "-o", "json")
	once := "{\"rings\":[\n" + ticksJSON + "\n]}\n"
	if exit != 0 || out.got.String() != once+"\n"+once || errOut.Len() > 0 {
		t.Errorf("exit %d, stdout %q, stderr %q", exit, out.got.String(), errOut.String())
	}
}

func TestRingCreateSendsWhatTheFlagsSay(t *testing.T) {
	f := startFake(t)
	f.ctl(t, "", "ring", "create", "ticks", "--capacity", "32MiB", "--policy", "lossless", "--mode", "0660", "--max-message", "4KiB", "--retain", "0", "--stall", "250ms",
		"--owner", "7", "--group", "8").want(t, 0, "", "created /ticks\n")
	want := `{"name":"/ticks","settings":{"capacityBytes":"33554432","maxMessageBytes":"4096","policy":"RING_POLICY_LOSSLESS","mode":432,"ownerUid":7,"groupGid":8,"retainBytes":"0","stall":"0.250s"}}`
	if got := protoJSON(t, seen[*ipcdv1.CreateRingRequest](t, f)); got != want {
		t.Errorf("sent %s, want %s", got, want)
	}
	f.ctl(t, "", "ring", "create", "/ticks").want(t, 0, "", "/ticks exists, with the same settings\n")
	if got := protoJSON(t, seen[*ipcdv1.CreateRingRequest](t, f)); got != `{"name":"/ticks","settings":{}}` {
		t.Errorf("sent %s", got)
	}
	f.ctl(t, "", "ring", "create", "/ticks", "/new", "--exclusive").want(t, 1, "", "ipcctl: /ticks: a ring has this name\ncreated /new\n")
}

func TestRingUpdateNamesTheFieldsThatWereGiven(t *testing.T) {
	f := ticks(t)
	f.ctl(t, "", "ring", "update", "ticks", "--mode", "0664", "--retain", "1MiB").want(t, 0, "", "updated /ticks\n")
	want := `{"name":"/ticks","settings":{"mode":436,"retainBytes":"1048576"},"updateMask":"mode,retainBytes"}`
	if got := protoJSON(t, seen[*ipcdv1.UpdateRingRequest](t, f)); got != want {
		t.Errorf("sent %s, want %s", got, want)
	}
	f.ctl(t, "", "ring", "update", "ticks").want(t, 2, "", "ipcctl: nothing to change: give a setting, as in ipcctl ring update ticks --mode 0660\n")
}

func TestRingRmAsksOnATerminalAndNeedsForceElsewhere(t *testing.T) {
	f := ticks(t)
	f.ctl(t, "", "ring", "rm", "/ticks").want(t, 2, "", "ipcctl: refusing to delete the ring /ticks with 1 producer and 1 consumer without --force, for there is no terminal to ask on\n")
	f.ctl(t, "", "ring", "rm", "/ticks", "--dry-run").want(t, 0, "would delete the ring /ticks with 1 producer and 1 consumer\n", "")
	for answer, want := range map[string]int{"n\n": 1, "": 1, "y\n": 0} {
		var errOut bytes.Buffer
		f.addRing("/asked")
		exit := f.run(t.Context(), streams{in: strings.NewReader(answer), out: io.Discard, err: &errOut, inTTY: true, eTTY: true}, "ring", "rm", "/asked")
		if exit != want || !strings.HasPrefix(errOut.String(), "Delete the ring /asked with 0 producers and 0 consumers? [y/N] ") || (f.rings["/asked"] == nil) != (want == 0) {
			t.Errorf("%q: exit %d, stderr %q", answer, exit, errOut.String())
		}
	}
	f.ctl(t, "", "ring", "rm", "/ticks", "--force").want(t, 0, "", "deleted /ticks\n")
	f.ctl(t, "", "ring", "rm", "/ticks", "--force").want(t, 3, "", "ipcctl: /ticks: there is no such ring\n")
	f.ctl(t, "", "ring", "rm", "/ticks", "--dry-run").want(t, 3, "", "ipcctl: /ticks: there is no such ring\n")
}

func TestRingHelpNamesLimitsAndOnlyThatOfCreateNamesDefaults(t *testing.T) {
	f := startFake(t)
	create, update := f.ctl(t, "", "ring", "create", "--help").out, f.ctl(t, "", "ring", "update", "--help").out
	for _, limit := range []string{"from 10ms to 10s", "from 0 to 16GiB"} {
		if !strings.Contains(create, limit) || !strings.Contains(update, limit) {
			t.Errorf("not both say %q:\n%s%s", limit, create, update)
		}
	}
	for _, want := range []string{"a power of two from 64KiB to 1GiB (default 32MiB)", "from 1 to a quarter of the capacity less 32", "(default 1s)", "(default 0600)", "(default: you)"} {
		if !strings.Contains(create, want) {
			t.Errorf("no %q in:\n%s", want, create)
		}
	}
	settings, _, _ := strings.Cut(update, "Global Flags")
	if strings.Contains(settings, "default") {
		t.Errorf("update has no defaults:\n%s", settings)
	}
}

func TestRingUsageErrorsAreOneLineWithASuggestion(t *testing.T) {
	f := startFake(t)
	for _, c := range []struct{ args, want string }{
		{"ring", `ipcctl: say what to do: ipcctl ring ls|stat|create|update|chown|chmod|rm|pub|sub; see ipcctl ring --help`},
		{"ring crate /x", `ipcctl: unknown command "ring crate"; did you mean create?; see ipcctl ring --help`},
		{"ring ls --srot name", `ipcctl: unknown flag "--srot"; did you mean --sort?; see ipcctl ring ls --help`},
		{"ring create", `ipcctl: name a ring, as in: ipcctl ring create /ticks --capacity 32MiB --policy overwrite --mode 0660; see ipcctl ring create --help`},
		{"ring create /x --policy lossles", `ipcctl: --policy: "lossles" is no policy: overwrite, lossless; did you mean lossless?; see ipcctl ring create --help`},
		{"ring create /x --capacity 0", `ipcctl: --capacity: "0": it must be at least 1; see ipcctl ring create --help`},
		{"ring create /x --mode 999", `ipcctl: --mode: "999" is no mode: write permission bits in octal, such as 0660; see ipcctl ring create --help`},
		{"ring stat", `ipcctl: name a ring, as in: ipcctl ring stat /ticks; see ipcctl ring stat --help`},
		{"ring sub /a /b", `ipcctl: ring sub takes one ring, "/b" is too much; see ipcctl ring sub --help`},
		{"ring sub /a --from oldset", `ipcctl: --from: "oldset" is no position: newest, oldest, or a sequence such as 4711; did you mean oldest?; see ipcctl ring sub --help`},
		{"ring sub /a --type 1,x", `ipcctl: --type: "x" is no type: write 1 to 9223372036854775807; see ipcctl ring sub --help`},
		{"ring sub /a -n 0", `ipcctl: --number: "0": it must be at least 1; see ipcctl ring sub --help`},
		{"ring pub", `ipcctl: name a ring, as in: ipcctl ring pub /ticks 'hello'; see ipcctl ring pub --help`},
		{"ring pub /a", `ipcctl: give a payload, or - to read it from stdin, or --lines for one message a line`},
		{"ring pub /a b c", `ipcctl: one payload at a time, "c" is too much: quote a payload with spaces, or use --lines`},
		{"ring pub /a b --lines", `ipcctl: --lines reads the messages from stdin, "b" is too much`},
		{"ring pub /a b --type 0", `ipcctl: --type: "0" is no type: write 1 to 9223372036854775807; see ipcctl ring pub --help`},
	} {
		if r := f.ctl(t, "", strings.Fields(c.args)...); r.exit != 2 || r.out != "" || r.err != c.want+"\n" {
			t.Errorf("%s: exit %d, stdout %q, stderr:\n%s\nwant:\n%s", c.args, r.exit, r.out, r.err, c.want)
		}
	}
	for _, args := range [][]string{{"ring", "\x1b[2J"}, {"ring", "sub", "/x", "--from", "\x1b\n"}, {"ring", "stat", "/\x1b\n"}} {
		if r := f.ctl(t, "", args...); r.exit == 0 || strings.Count(r.err, "\n") != 1 || escapeText(r.err, "") != r.err {
			t.Errorf("%q: exit %d, stderr %q", args, r.exit, r.err)
		}
	}
}

func TestCompletionKnowsRings(t *testing.T) {
	f := ticks(t)
	f.add("/jobs")
	for _, c := range []struct{ args, want string }{
		{"ring stat /t", "/ticks\n:4\n"}, {"ring sub t", "ticks\n:4\n"}, {"ring rm /ticks /", ":4\n"}, {"ring create --policy ", "overwrite\nlossless\n:4\n"},
		{"ring sub /ticks --from ", "newest\noldest\n:4\n"}, {"ring sub /ticks -o ", "text\njson\njsonl\nraw\nhex\n:4\n"}, {"ring pub ", "/ticks\n:4\n"},
	} {
		if r := f.ctl(t, "", append([]string{"__complete"}, strings.Split(c.args, " ")...)...); r.exit != 0 || r.out != c.want {
			t.Errorf("%s: exit %d, stdout %q, want %q; stderr %q", c.args, r.exit, r.out, c.want, r.err)
		}
	}
}
