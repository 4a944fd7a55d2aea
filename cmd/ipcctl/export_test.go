package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ipcd/ipcd/client"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// everything is a queue with messages that have, in turn, every field in every odd form, in every state.
func everything(t *testing.T) *fake {
	t.Helper()
	f := startFake(t)
	q := f.add("/q")
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	for _, m := range []*ipcdv1.Message{
		{Type: 1},
		{Type: 7, Priority: 32767, Body: all, Headers: map[string][]byte{"k": []byte("v"), "": {}, "raw": all, "ü\u202e\n": []byte("\u2028")},
			ContentType: "x/y", CorrelationId: "c\x01", ReplyTo: "/tmp.x", DedupId: "d\"\\", Ttl: durationpb.New(90*time.Minute + time.Nanosecond)},
		{Type: 1<<63 - 1, Body: []byte("line\nline\r\n\x00\u2028 </script> \ufffd 🎉")},
		{Type: 8, Body: []byte("\xc3\x28"), Headers: map[string][]byte{"only": {0xff}}},
		{Type: 2, Body: []byte("buried")},
		{Type: 3, Body: []byte("delayed")},
		{Type: 4, Body: []byte("leased")},
		{Type: 5, Body: bytes.Repeat([]byte("long "), 20000)},
	} {
		q.put(m)
	}
	ms := q.messages
	ms[1].Attempts, ms[1].ExpireTime = 3, timestamppb.New(sentAt.Add(90*time.Minute+time.Nanosecond))
	ms[4].State, ms[4].BuryReason, ms[4].Attempts = ipcdv1.MessageState_MESSAGE_STATE_BURIED, "because\x1b", 16
	ms[5].State, ms[5].DueTime = ipcdv1.MessageState_MESSAGE_STATE_DELAYED, timestamppb.New(leaseEnds.Add(time.Nanosecond))
	ms[6].State, ms[6].LeaseExpireTime = ipcdv1.MessageState_MESSAGE_STATE_LEASED, timestamppb.New(leaseEnds)
	for i, m := range ms {
		m.SendTime = timestamppb.New(sentAt.Add(time.Duration(i)))
	}
	return f
}

// plain are a queue's messages without what an import changes.
func (f *fake) plain(name string) (all []*ipcdv1.PeekedMessage) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range f.queues[name].messages {
		m = proto.CloneOf(m)
		m.Sequence, m.LeaseExpireTime = 0, nil
		if m.State == ipcdv1.MessageState_MESSAGE_STATE_LEASED {
			m.State = ipcdv1.MessageState_MESSAGE_STATE_READY
		}
		all = append(all, m)
	}
	return all
}

func sameMessages(t *testing.T, got, want []*ipcdv1.PeekedMessage) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d messages, want %d", len(got), len(want))
	}
	for i := range got {
		if !proto.Equal(got[i], want[i]) {
			t.Errorf("message %d:\n%.500v\nwant:\n%.500v", i+1, got[i], want[i])
		}
	}
}

var formats = []string{"jsonl", "compact"}

func TestWhatIsExportedAndImportedIsTheSame(t *testing.T) {
	for _, format := range formats {
		f := everything(t)
		f.add("/copy")
		file := filepath.Join(t.TempDir(), "x")
		f.ctl(t, "", "export", "q", "-f", file, "--format", format).want(t, 0, "", "exported 8 messages (98KiB) from /q\n")
		if r := seen[*ipcdv1.PeekRequest](t, f); r.Order != ipcdv1.PeekOrder_PEEK_ORDER_SEQUENCE || len(r.Filter.States) != 4 {
			t.Errorf("asked for %v", r)
		}
		f.ctl(t, "", "import", "copy", "-f", file, "--dry-run").want(t, 0, "", "would import 8 messages (98KiB): 5 ready, 1 delayed, 1 leased, 1 buried (leased ones become ready), into /copy\n")
		f.ctl(t, "", "import", "copy", "-f", file).want(t, 0, "", "imported 8 messages (98KiB): 5 ready, 1 delayed, 1 leased, 1 buried (leased ones become ready), into /copy\n")
		sameMessages(t, f.plain("/copy"), f.plain("/q"))
		r := f.ctl(t, "", "export", "copy", "--format", format)
		f.add("/again")
		f.ctl(t, r.out, "import", "again")
		sameMessages(t, f.plain("/again"), f.plain("/q"))
		if left, _ := filepath.Glob(file + "*"); len(left) != 1 {
			t.Errorf("the import left %v", left)
		}
	}
}

func TestAnExportIsJSONLinesThatStayAsTheyAre(t *testing.T) {
	f := odd(t)
	r := f.ctl(t, "", "export", "q", "--type", "created", "--older-than", "1h")
	lines := strings.Split(r.out, "\n")
	head := strings.Replace(lines[0], `"export_time":"2`, `"export_time":"T`, 1)
	if !strings.HasPrefix(head, `{"ipcd_export":1,"queue":"/q","queue_id":1,"export_time":"T`) || !strings.Contains(head, `"filter":"--type created --older-than 1h0m0s","settings":{"max_messages":1000,`) {
		t.Errorf("the header is %s", lines[0])
	}
	want := `{"queue":"/q","sequence":1,"state":"ready","type":7,"type_name":"created","priority":3,"body_base64":"/xtb","headers":{"k":"v\u001b"},` +
		`"headers_base64":{"raw":"/w=="},"content_type":"x/y","correlation_id":"c","reply_to":"/r","dedup_id":"d","send_time":"2026-01-02T03:04:05.000000006Z","attempts":2}`
	if r.exit != 0 || len(lines) != 4 || lines[1] != want {
		t.Errorf("exit %d, the first message is\n%s\nwant\n%s", r.exit, lines[1], want)
	}
}

func TestAnExportIsContinuedWhereverItWasCutOff(t *testing.T) {
	for _, format := range formats {
		f := everything(t)
		f.queues["/q"].messages = f.queues["/q"].messages[:7] // the long one would take long here
		dir := t.TempDir()
		whole := filepath.Join(dir, "whole")
		f.ctl(t, "", "export", "q", "-f", whole, "--format", format)
		text, err := os.ReadFile(whole)
		if err != nil {
			t.Fatal(err)
		}
		header := 1 + bytes.IndexByte(text, '\n')
		for cut := 0; cut <= len(text); cut += 29 {
			file := filepath.Join(dir, "cut")
			if err := os.WriteFile(file, text[:cut], 0o600); err != nil {
				t.Fatal(err)
			}
			r := f.ctl(t, "", "export", "q", "-f", file, "--resume")
			if cut > 0 && r.exit == 1 && strings.Contains(r.err, "not even its header is whole: --force begins anew") && (format == "compact" || cut < header) {
				continue
			}
			if r.exit != 0 {
				t.Fatalf("%s cut to %d of %d: exit %d, stderr %s", format, cut, len(text), r.exit, r.err)
			}
			f.add("/copy")
			if r := f.ctl(t, "", "import", "copy", "-f", file); r.exit != 0 {
				t.Fatalf("%s cut to %d of %d: import exit %d, stderr %s", format, cut, len(text), r.exit, r.err)
			}
			sameMessages(t, f.plain("/copy"), f.plain("/q"))
		}
	}
}

// A compact export is cut at the end of a member, so its later members need a test of their own.
func TestACompactExportOfSeveralPartsIsCutBackToTheLastWholeOne(t *testing.T) {
	f := startFake(t)
	q := f.add("/q")
	for i := range 40 {
		q.put(&ipcdv1.Message{Type: 1, Body: bytes.Repeat([]byte{byte(i)}, 100_000)})
	}
	file := filepath.Join(t.TempDir(), "x")
	f.ctl(t, "", "export", "q", "-f", file, "--format", "compact").want(t, 0, "", "exported 40 messages (3.8MiB) from /q\n")
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, info.Size()*6/10); err != nil {
		t.Fatal(err)
	}
	f.add("/copy")
	r := f.ctl(t, "", "import", "copy", "-f", file)
	if r.exit != 1 || !strings.Contains(r.err, "the same command goes on with message 23 of ") || !strings.Contains(r.err, "export --resume completes it") {
		t.Errorf("exit %d, stderr %s", r.exit, r.err)
	}
	f.ctl(t, "", "export", "q", "-f", file, "--resume").want(t, 0, "", "exported 18 messages (1.7MiB) from /q, after 22 that were there\n")
	f.ctl(t, "", "import", "copy", "-f", file).want(t, 0, "", "imported 18 messages (1.7MiB) into /copy\n")
	sameMessages(t, f.plain("/copy"), f.plain("/q"))
}

func TestADamagedCompactExportIsNeverTakenForAnother(t *testing.T) {
	f := everything(t)
	f.queues["/q"].messages = f.queues["/q"].messages[:7]
	text := []byte(f.ctl(t, "", "export", "q", "--format", "compact").out)
	read := func(text []byte) (all [][]byte, err error) {
		r, err := newExportReader(bytes.NewReader(text))
		for err == nil {
			var m *client.Peeked
			if m, err = r.next(); err == nil {
				b, _ := m.MarshalBinary()
				all = append(all, b)
			}
		}
		return all, err
	}
	want, err := read(text)
	if err != io.EOF || len(want) != 7 {
		t.Fatalf("%d messages, %v", len(want), err)
	}
	for i := range text {
		for _, bit := range []int{0, 3, 6} {
			damaged := bytes.Clone(text)
			damaged[i] ^= 1 << bit
			// gzip has bits that mean nothing, such as the time in its header.
			if got, err := read(damaged); err == io.EOF && !reflect.DeepEqual(got, want) {
				t.Errorf("bit %d of byte %d was changed, and %d messages were read as if nothing were wrong", bit, i, len(got))
			}
		}
	}
}

func TestExportRefusesWhatItWouldMix(t *testing.T) {
	f := everything(t)
	f.add("/other")
	dir := t.TempDir()
	file := filepath.Join(dir, "x")
	f.ctl(t, "", "export", "q", "-f", file)
	for args, want := range map[string]string{
		"q -f " + file:                              "exists: --resume continues an export, --force replaces the file",
		"other --resume -f " + file:                 "it is an export of another queue: /q with id 1, not /other with id 2",
		"q --resume --type 7 -f " + file:            "it is an export with other filters: give those again (none)",
		"q --resume --format compact -f " + file:    "its format is jsonl: leave out --format",
		"q --resume -f " + dir + "/../":             "is a directory",
		"q --resume --force -f " + file:             "exclude each other",
		"q --resume -f /dev/null":                   "it is no regular file",
		"q -f " + filepath.Join(dir, "none", "any"): "no such file or directory",
	} {
		if r := f.ctl(t, "", append([]string{"export"}, strings.Fields(args)...)...); r.exit == 0 || !strings.Contains(r.err, want) {
			t.Errorf("%s: exit %d, stderr %s", args, r.exit, r.err)
		}
	}
	f.ctl(t, "", "export", "q", "-f", file, "--resume").want(t, 0, "", "exported 0 messages (0B) from /q, after 8 that were there\n")
	f.ctl(t, "", "export", "q", "-f", file, "--force").want(t, 0, "", "exported 8 messages (98KiB) from /q\n")
}

func TestAnImportGoesOnWhereItStopped(t *testing.T) {
	for _, fromStdin := range []bool{false, true} {
		f := startFake(t)
		q := f.add("/q")
		for i := range 3000 {
			q.put(&ipcdv1.Message{Type: 1, Body: fmt.Appendf(nil, "body %d", i+1)})
		}
		q.messages[2500].Message.Body = []byte("refuse this")
		text := f.ctl(t, "", "export", "q").out
		f.add("/copy")
		file := filepath.Join(t.TempDir(), "x")
		args, input := []string{"import", "copy", "-f", file}, ""
		if fromStdin {
			args, input = []string{"import", "copy"}, text
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		r := f.ctl(t, input, args...)
		if r.exit == 0 || !strings.HasPrefix(r.err, "imported 2048 messages") {
			t.Fatalf("exit %d, stderr %s", r.exit, r.err)
		}
		if fromStdin {
			_, place, found := strings.Cut(r.err, "--from ")
			if !found {
				t.Fatalf("stderr %s", r.err)
			}
			args = append(args, "--from", strings.Fields(place)[0])
		} else if other := f.ctl(t, "", "import", "q", "-f", file); !strings.Contains(other.err, "is of another import, of an export of /q into /copy") {
			t.Errorf("exit %d, stderr %s", other.exit, other.err)
		}
		first := seen[*ipcdv1.ImportMessagesRequest](t, f)
		mended := strings.Replace(text, "refuse this", "mended", 1)
		if fromStdin {
			input = mended
		} else if err := os.WriteFile(file, []byte(mended), 0o600); err != nil {
			t.Fatal(err)
		}
		f.ctl(t, input, args...).want(t, 0, "", "imported 952 messages (8.4KiB) into /copy\n")
		again := seen[*ipcdv1.ImportMessagesRequest](t, f)
		if first.ProducerId == "" || first.ProducerId != again.ProducerId || first.BatchId != 2049 || again.BatchId != 2049 {
			t.Errorf("the batch was sent as %s %d, and again as %s %d", first.ProducerId, first.BatchId, again.ProducerId, again.BatchId)
		}
		q.messages[2500].Message.Body = []byte("mended")
		sameMessages(t, f.plain("/copy"), f.plain("/q"))
	}
}

// exported is an export of a queue with so many messages, in a file.
func exported(t *testing.T, f *fake, messages int) (file string) {
	t.Helper()
	q := f.add("/q")
	for i := range messages {
		q.put(&ipcdv1.Message{Type: 1, Body: fmt.Appendf(nil, "body %d", i+1)})
	}
	file = filepath.Join(t.TempDir(), "x")
	if r := f.ctl(t, "", "export", "q", "-f", file); r.exit != 0 {
		t.Fatal(r.err)
	}
	return file
}

// Whoever kills the import before the first answer has come must find the producer id under which that batch is known.
func TestAnImportKeepsItsPlaceBeforeItStoresAnything(t *testing.T) {
	f := startFake(t)
	file := exported(t, f, 1500)
	f.add("/copy")
	var kept []string
	f.imports = func(r *ipcdv1.ImportMessagesRequest) {
		text, err := os.ReadFile(file + importSuffix)
		if err != nil {
			t.Error(err)
		}
		if want := fmt.Sprintf(`"next":%d,"producer":"%s"}`, r.BatchId, r.ProducerId); !strings.Contains(string(text), want) {
			t.Errorf("kept %s, want %s", text, want)
		}
		kept = append(kept, string(text))
	}
	if err := os.WriteFile(file+importSuffix+".new", []byte("of a killed one"), 0o600); err != nil {
		t.Fatal(err)
	}
	f.ctl(t, "", "import", "copy", "-f", file).want(t, 0, "", "imported 1500 messages (12.1KiB) into /copy\n")
	if left, _ := filepath.Glob(file + "*"); len(kept) != 2 || len(left) != 1 {
		t.Errorf("%d batches, the import left %v", len(kept), left)
	}
}

func TestARefusedImportLeavesNoPlace(t *testing.T) {
	f := startFake(t)
	f.add("/q").put(&ipcdv1.Message{Type: 1, Body: []byte("refuse this")})
	file := filepath.Join(t.TempDir(), "x")
	f.ctl(t, "", "export", "q", "-f", file)
	f.add("/copy")
	r := f.ctl(t, "", "import", "copy", "-f", file)
	if left, _ := filepath.Glob(file + "*"); r.exit == 0 || len(left) != 1 {
		t.Errorf("exit %d, stderr %s, the import left %v", r.exit, r.err, left)
	}
}

// blockSaves makes saving of the place fail, for root as well.
func blockSaves(t *testing.T, file string) {
	if err := os.MkdirAll(file+importSuffix+".new/in the way", 0o700); err != nil {
		t.Error(err)
	}
}

func TestAnImportThatCannotKeepItsPlaceStoresNothing(t *testing.T) {
	f := startFake(t)
	file := exported(t, f, 3)
	f.add("/copy")
	blockSaves(t, file)
	r := f.ctl(t, "", "import", "copy", "-f", file)
	if r.exit != 1 || len(f.plain("/copy")) != 0 || !strings.HasPrefix(r.err, "imported 0 messages") || !strings.Contains(r.err, "make its directory writable, or import from stdin") {
		t.Errorf("%d messages are there, exit %d, stderr %s", len(f.plain("/copy")), r.exit, r.err)
	}
}

func TestWhatAnImportStoredCountsAlthoughItsPlaceIsNotKept(t *testing.T) {
	f := startFake(t)
	file := exported(t, f, 1500)
	f.add("/copy")
	f.imports = func(*ipcdv1.ImportMessagesRequest) { blockSaves(t, file) }
	r := f.ctl(t, "", "import", "copy", "-f", file)
	_, place, found := strings.Cut(r.err, "with the same input from stdin, --from ")
	if r.exit != 1 || !strings.HasPrefix(r.err, "imported 1024 messages") || !found || !strings.HasPrefix(place, "1025:import-") {
		t.Fatalf("exit %d, stderr %s", r.exit, r.err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	f.imports = nil
	f.ctl(t, string(text), "import", "copy", "--from", strings.Fields(place)[0]).want(t, 0, "", "imported 476 messages (4.2KiB) into /copy\n")
	sameMessages(t, f.plain("/copy"), f.plain("/q"))
}

func TestImportNamesTheMessageThatIsWrong(t *testing.T) {
	f := startFake(t)
	f.add("/q")
	head := `{"ipcd_export":1,"queue":"/q"}` + "\n"
	good := `{"queue":"/q","sequence":1,"state":"ready","type":1,"body":"x","send_time":"2026-01-02T03:04:05Z"}` + "\n"
	for text, want := range map[string]string{
		"":                                "it is empty",
		"hello":                           "it is no export",
		"{}\n":                            "it does not begin with the header of one",
		`{"ipcd_export":2}` + "\n":        "it has format 2, this ipcctl reads up to 1: use a newer one",
		"\x1f\x8bnothing":                 "it ends in the middle",
		head + good + `{"type":0}` + "\n": "message 2: type 0",
		head + `{"type":1,"state":"ready"}` + "\n":                                 "message 1: it needs either body or body_base64",
		head + `{"type":1,"state":"ready","body":"","body_base64":""}` + "\n":      "message 1: it needs either body or body_base64",
		head + `{"type":1,"state":"odd","body":""}` + "\n":                         "message 1: ",
		head + `{"type":1,"state":"ready","body_base64":"?"}` + "\n":               "message 1: body_base64: ",
		head + `{"type":1,"state":"ready","body":"","ttl":"-5s"}` + "\n":           `message 1: ttl: "-5s" is no duration`,
		head + `{"type":1,"state":"ready","body":"","send_time":"now"}` + "\n":     `message 1: send_time: "now" is no time of RFC 3339`,
		head + `{"type":1,"state":"ready","body":"","headers_base64":{"k":"?"}}`:   "message 1: headers_base64: ",
		head + `{"type":1,"state":"ready","body":"abc","truncated_from":9}` + "\n": "message 1: its body was cut to 3 of 9 bytes",
		head + good + good[:20]: "it ends in the middle of a message",
		head + "\n":             "message 1: ",
	} {
		r := f.ctl(t, text, "import", "q", "--dry-run")
		if r.exit != 1 || !strings.Contains(r.err, want) || escapeText(r.err, "") != r.err {
			t.Errorf("%q: exit %d, stderr %s, want %s", text, r.exit, r.err, want)
		}
	}
}

func FuzzExportsAreReadOrRefused(f *testing.F) {
	f.Add([]byte(`{"ipcd_export":1}` + "\n" + `{"type":1,"state":"ready","body":""}` + "\n"))
	f.Add([]byte("\x1f\x8b\x08\x00\x00\x00\x00\x00"))
	var compact bytes.Buffer
	w := newCompactWriter(&compact)
	if err := w.begin(exportHeader{Version: 1}); err != nil {
		f.Fatal(err)
	}
	if err := w.flush(); err != nil {
		f.Fatal(err)
	}
	f.Add(compact.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := newExportReader(bytes.NewReader(data))
		for n := 0; err == nil; n++ {
			if _, err = r.next(); n > len(data)*1100 {
				t.Fatal("more messages than can be")
			}
		}
	})
}

func TestFiltersAsTextAreTheSameForTheSameFlags(t *testing.T) {
	f := filterFlags{selector: "created", states: allStates[:2], sequences: sequences{3, 9}, olderThan: time.Hour, headers: []header{{"k", "v"}}}
	if got, want := f.text(), "--type created --state ready,delayed --seq 3-9 --older-than 1h0m0s --header k=v"; got != want {
		t.Errorf("got %s", got)
	}
	if got := (&filterFlags{states: slices.Clone(allStates)}).text(); got != "" {
		t.Errorf("everything is %q", got)
	}
}
