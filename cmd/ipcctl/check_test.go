package main

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// totals is the performance data that every check gives.
const totals = " | 'queues'=2;;;0 'messages'=3;;;0 'bytes'=4096B;;;0 'rings'=2;;;0 'ring_memory'=8192B;;;0 'journal_disk'=100663296B;;;0"

// healthy is a daemon of which a check has nothing to say.
func healthy(t *testing.T) *fake {
	f := ticks(t)
	f.info.Storage.Full, f.info.Storage.Damaged, f.info.Storage.DamagedQueues = false, 0, nil
	f.info.StartTime = nil
	q := f.add("/jobs", "one", "two", "three")
	q.info.Stats.OldestAge = durationOf(90 * time.Second)
	f.add("/mail", "one").messages[0].State = ipcdv1.MessageState_MESSAGE_STATE_BURIED
	return f
}

// wantCheck compares how the output begins and ends: between them is the time that the daemon has been up.
func (r result) wantCheck(t *testing.T, exit int, begin, end string) {
	t.Helper()
	if r.exit != exit || r.err != "" || !strings.HasPrefix(r.out, begin) || !strings.HasSuffix(r.out, end) {
		t.Errorf("exit %d, stderr %q, stdout:\n%swant exit %d, stdout:\n%s…%s", r.exit, r.err, r.out, exit, begin, end)
	}
}

func TestCheckOfAHealthyDaemonIsOK(t *testing.T) {
	f := healthy(t)
	f.ctl(t, "", "check").wantCheck(t, 0, "IPCD OK - 2 queues, 3 messages, 2 rings, up ", totals+"\n")
	f.ctl(t, "", "check", "--depth-warning", "3", "--age-critical", "90s", "--buried-warning", "1", "--lag-critical", "4").wantCheck(t, 0, "IPCD OK - ", totals+"\n")
}

func TestCheckNamesWhatIsOverAThreshold(t *testing.T) {
	f := healthy(t)
	f.ctl(t, "", "check", "--depth-warning", "2").want(t, 1, "IPCD WARNING - /jobs: 3 ready, more than 2"+totals+"\n", "")
	f.ctl(t, "", "check", "--depth-warning", "1", "--depth-critical", "2").want(t, 2, "IPCD CRITICAL - /jobs: 3 ready, more than 2"+totals+"\n", "")
	f.ctl(t, "", "check", "--age-warning", "89s").want(t, 1, "IPCD WARNING - /jobs: the oldest ready message is 1m30s old, more than 1m29s"+totals+"\n", "")
	f.ctl(t, "", "check", "--lag-warning", "3").want(t, 1, "IPCD WARNING - ring /ticks: a consumer is 4 messages behind, more than 3"+totals+"\n", "")
	f.ctl(t, "", "check", "--buried-warning", "0", "--age-critical", "1m").want(t, 2, "IPCD CRITICAL - 2 problems, such as: /jobs: the oldest ready message is 1m30s old, more than 1m0s"+totals+"\n"+
		"CRITICAL: /jobs: the oldest ready message is 1m30s old, more than 1m0s\nWARNING: /mail: 1 buried, more than 0\n", "")
}

func TestCheckLooksAtWhatIsNamed(t *testing.T) {
	f := healthy(t)
	f.ctl(t, "", "check", "ma*", "--depth-warning", "0", "--age-warning", "1s").want(t, 0, "IPCD OK - 2 queues, 3 messages, 2 rings, up "+upOf(t, f)+"; looked at 2 of 2 queues"+totals+" '/mail ready'=0;0;;0 '/mail oldest'=0s;1;;0 '/mail buried'=1;;;0\n", "")
	f.ctl(t, "", "check", "/jobs", "--age-warning", "1m", "--age-critical", "1h", "--ring", "ticks", "--lag-critical", "9").want(t, 1,
		"IPCD WARNING - /jobs: the oldest ready message is 1m30s old, more than 1m0s"+totals+
			" '/jobs ready'=3;;;0 '/jobs oldest'=90s;60;3600;0 '/jobs buried'=0;;;0 'ring /ticks lag'=4;;9;0\n", "")
	f.ctl(t, "", "check", "gone*", "--ring", "away").want(t, 3, "IPCD UNKNOWN - 2 problems, such as: no queue that you may look at matches \"gone*\""+totals+
		"\nUNKNOWN: no queue that you may look at matches \"gone*\"\nUNKNOWN: no ring that you may look at matches \"away\"\n", "")
	f.ctl(t, "", "check", "gone", "jobs", "--depth-warning", "0").wantCheck(t, 1, "IPCD WARNING - 2 problems, such as: /jobs: 3 ready", "UNKNOWN: no queue that you may look at matches \"gone\"\n")
}

// upOf is what the fake says of how long it has been up, which does not change within a day.
func upOf(t *testing.T, f *fake) string {
	t.Helper()
	out := f.ctl(t, "", "check").out
	_, rest, _ := strings.Cut(out, "up ")
	up, _, found := strings.Cut(rest, " |")
	if !found {
		t.Fatalf("no time in %q", out)
	}
	return up
}

func TestCheckIsNotContentWithWhatItMayNotSee(t *testing.T) {
	f := startFake(t)
	f.info.Storage = &ipcdv1.Storage{}
	f.ctl(t, "", "check", "--depth-warning", "0").wantCheck(t, 3, "IPCD UNKNOWN - you may look at none of 2 queues: see ipcctl check --help | ", "\n")
	f.ctl(t, "", "check", "--lag-warning", "0").wantCheck(t, 3, "IPCD UNKNOWN - you may look at none of 2 rings: see ipcctl check --help | ", "\n")
	f.add("/mine")
	if r := f.ctl(t, "", "check", "--depth-warning", "0"); r.exit != 0 || !strings.Contains(r.out, "; looked at 1 of 2 queues |") {
		t.Errorf("exit %d, %q", r.exit, r.out)
	}
	f.info.Queues, f.info.Rings = 0, 0
	f.ctl(t, "", "check", "--lag-warning", "0").wantCheck(t, 0, "IPCD OK - ", "\n")
}

func TestCheckFindsDamageOfWhichTheQueuesAreNotKnown(t *testing.T) {
	f := healthy(t)
	f.info.Storage.Damage = "generation 3: a whole segment is missing"
	f.ctl(t, "", "check").want(t, 2, "IPCD CRITICAL - the journal is damaged: generation 3: a whole segment is missing"+totals+"\n", "")
	if r := f.ctl(t, "", "info"); !strings.Contains(r.out, "  damage found        generation 3: a whole segment is missing\n") {
		t.Errorf("said %s", r.out)
	}
}

func TestCheckFindsAFullDiskAndDamage(t *testing.T) {
	f := healthy(t)
	f.info.Storage.Full = true
	f.ctl(t, "", "check").want(t, 2, "IPCD CRITICAL - the journal's disk is full: sends are refused until there is room"+totals+"\n", "")
	f.info.Storage.Full, f.info.Storage.Damaged, f.info.Storage.DamagedQueues = false, 2, []string{"/a|b\x1b"}
	f.ctl(t, "", "check").want(t, 2, `IPCD CRITICAL - the journal is damaged: 2 queues read-only /a\x7cb\x1b`+totals+"\n", "")
}

func TestCheckOfADaemonThatDoesNotWorkIsCritical(t *testing.T) {
	none := &fake{address: t.TempDir() + "/none.sock"}
	none.ctl(t, "", "check").wantCheck(t, 2, "IPCD CRITICAL - no ipcd answers at ", "\n")
	f := healthy(t)
	f.health.SetServingStatus("", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	f.ctl(t, "", "check").wantCheck(t, 2, "IPCD CRITICAL - the daemon answers, but says that it is NOT_SERVING", "\n")
	f.health.SetServingStatus("", grpc_health_v1.HealthCheckResponse_SERVING)
	f.mu.Lock()
	f.info = nil
	f.mu.Unlock()
	f.ctl(t, "", "check", "--timeout", "50ms").want(t, 2, "IPCD CRITICAL - no answer within 50ms\n", "")
	ctx, interrupt := context.WithCancel(t.Context())
	interrupt()
	var out bytes.Buffer
	if exit := f.run(ctx, streams{in: strings.NewReader(""), out: &out, err: &out}, "check"); exit != 3 {
		t.Errorf("interrupted: exit %d, %s", exit, out.String())
	}
}

func TestCheckThatCannotBeMadeIsUnknown(t *testing.T) {
	f := healthy(t)
	for args, says := range map[string]string{
		"check --depth-warning":                      "flag needs an argument",
		"check --dept-warning 3":                     `unknown flag "--dept-warning"; did you mean --depth-warning?`,
		"check --depth-warning many":                 "no whole number",
		"check --age-warning 1":                      "no duration",
		"check [":                                    "no pattern",
		"check --ring [":                             "no pattern",
		"check --depth-warning 3 --depth-critical 2": "it would never be seen",
		"check --age-warning 3s --age-critical 2s":   "it would never be seen",
		"check --lag-warning 3 --lag-critical 2":     "it would never be seen",
		"check --address 192.0.2.1:1":                "TCP needs TLS",
		"check --address 127.0.0.1:1 --tls-cert a|b": `a\x7cb`,
		"check --bogus | x":                          `unknown flag "--bogus"`,
	} {
		r := f.ctl(t, "", strings.Fields(args)...)
		if r.exit != 3 || r.err != "" || !strings.HasPrefix(r.out, "IPCD UNKNOWN - ") || !strings.Contains(r.out, says) || strings.Count(r.out, "\n") != 1 {
			t.Errorf("%s: exit %d, stderr %q, stdout %q, want %q", args, r.exit, r.err, r.out, says)
		}
	}
	if r := f.ctl(t, "", "check", "--help"); r.exit != 0 || !strings.Contains(r.out, "--depth-warning") {
		t.Errorf("help: exit %d, %s", r.exit, r.out)
	}
	if exit := f.run(t.Context(), streams{in: strings.NewReader(""), out: fullDisk{}, err: new(bytes.Buffer)}, "check"); exit != 3 {
		t.Errorf("without a place to write: exit %d", exit)
	}
}

func TestCheckKeepsItsOutputShort(t *testing.T) {
	f := healthy(t)
	for i := range 200 {
		f.add(fmt.Sprintf("/many%03d", i), "x")
	}
	r := f.ctl(t, "", "check", "many*", "--depth-critical", "0")
	if r.exit != 2 || strings.Count(r.out, "\n") != 1+listedMost+1 || !strings.HasSuffix(r.out, "\nand 150 more\n") || strings.Count(r.out, "' ready") != 0 || strings.Count(r.out, " ready'=") != listedMost {
		t.Errorf("exit %d:\n%s", r.exit, r.out)
	}
}

func TestCheckTellsDeniedFromCritical(t *testing.T) {
	for want, err := range map[serviceState]error{
		stateUnknown:  refuse(reason.AccessDenied, "no"),
		stateCritical: refuse(reason.Unhealthy, "no"),
	} {
		f := healthy(t)
		f.failInfo = err
		if r := f.ctl(t, "", "check"); r.exit != int(want) {
			t.Errorf("%v: exit %d, %s", err, r.exit, r.out)
		}
	}
}
