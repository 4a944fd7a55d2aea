package main

import (
	"bytes"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// reloads lets the fake answer a reload.
func reloads(f *fake, r *ipcdv1.ReloadResponse, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reload = func() (*ipcdv1.ReloadResponse, error) { return r, err }
}

func TestReloadSaysWhatCameOfIt(t *testing.T) {
	f := startFake(t)
	f.ctl(t, "", "reload").want(t, 5, "", "ipcctl: only admins may\n")
	reloads(f, &ipcdv1.ReloadResponse{}, nil)
	f.ctl(t, "", "reload").want(t, 0, "", "nothing had changed\n")
	f.ctl(t, "", "reload", "-o", "json").want(t, 0, "{\n  \"applied\": [],\n  \"need_restart\": [],\n  \"refused\": [],\n  \"warnings\": []\n}\n", "")
	some := &ipcdv1.ReloadResponse{Applied: []string{"log_level", "queues./jobs"}, NeedRestart: []string{"state_dir"}}
	reloads(f, some, nil)
	f.ctl(t, "", "reload").want(t, 0, "applied log_level\napplied queues./jobs\n", "needs a restart: state_dir\n")
	some.Refused = []string{"rings./ticks: policy: it is settled\x1b"}
	f.ctl(t, "", "reload").want(t, 1, "applied log_level\napplied queues./jobs\n", "needs a restart: state_dir\nipcctl: refused: rings./ticks: policy: it is settled\\x1b\n")
	f.ctl(t, "", "reload", "-o", "yaml").want(t, 1, "applied:\n- log_level\n- queues./jobs\nneed_restart:\n- state_dir\nrefused:\n- \"rings./ticks: policy: it is settled\\x1b\"\nwarnings: []\n",
		"ipcctl: refused: rings./ticks: policy: it is settled\\x1b\n")
	reloads(f, &ipcdv1.ReloadResponse{Warnings: []string{"/etc/ipcd/conf.d/20.yml: it is not read\x1b"}}, nil)
	f.ctl(t, "", "reload").want(t, 0, "", "nothing had changed\nipcctl: warning: /etc/ipcd/conf.d/20.yml: it is not read\\x1b\n")
}

func TestReloadSaysEachMistakeOnItsLine(t *testing.T) {
	f := startFake(t)
	reloads(f, nil, refuse(reason.ConfigInvalid, "/etc/ipcd/ipcd.yaml:3: no key quues; did you mean queues?\n/etc/ipcd/ipcd.yaml:9: lease: \"x\x1b\" is no duration"))
	f.ctl(t, "", "reload").want(t, 1, "", "ipcctl: /etc/ipcd/ipcd.yaml:3: no key quues; did you mean queues?\n"+
		"ipcctl: /etc/ipcd/ipcd.yaml:9: lease: \"x\\x1b\" is no duration\nnothing has changed\n")
}

func TestMetricsAreWrittenAsTheyAre(t *testing.T) {
	f := startFake(t)
	f.ctl(t, "", "metrics").want(t, 0, "ipcd_queue_ready{queue=\"/a\u202eb\"} 1\n", "")
	var out bytes.Buffer
	if exit := f.run(t.Context(), streams{in: strings.NewReader(""), out: &out, err: &out, outTTY: true}, "metrics"); exit != 0 || out.String() != "ipcd_queue_ready{queue=\"/a\\u202eb\"} 1\n" {
		t.Errorf("on a terminal: exit %d, %q", exit, out.String())
	}
}

// someClients are connections of each kind.
func someClients(t *testing.T) *fake {
	f := startFake(t)
	at := timestamppb.New(sentAt)
	f.clients = []*ipcdv1.ClientConnection{
		{Id: 3, Door: "unix", Caller: &ipcdv1.Caller{Kind: "unix", Uid: proto.Uint32(4000000001), Gid: proto.Uint32(4000000002), Groups: []uint32{5}, Pid: 77}, Command: "work\x1ber", ConnectTime: at,
			Uses: []*ipcdv1.ClientUse{
				{Method: "Receive", Name: "/jobs", Since: at, Outstanding: 2, Behind: 10}, {Method: "Receive", Name: "/jobs", Since: at, Outstanding: 1, Behind: 10},
				{Method: "Consume", Name: "/mail", Since: at, Outstanding: 4, Behind: 30}},
			Calls: 3, CallsTotal: 9, UserAgent: "worker/1"},
		{Id: 1, Door: "attach", Caller: &ipcdv1.Caller{Kind: "unix", Uid: proto.Uint32(4000000003), Pid: 78}, Command: "feed", ConnectTime: at, Uses: []*ipcdv1.ClientUse{{Method: "produce", Name: "/ticks", Since: at}}},
		{Id: 4, Door: "tcp", Caller: &ipcdv1.Caller{Kind: "certificate", Name: "spiffe://example.org/a", Admin: true}, RemoteAddress: "192.0.2.1:7", ConnectTime: at},
		{Id: 6, Door: "tcp", Caller: &ipcdv1.Caller{Kind: "certificate", Name: "CN=b", Uid: proto.Uint32(4000000004)}, RemoteAddress: "192.0.2.1:8", ConnectTime: at},
		{Id: 5, Door: "tcp", Caller: &ipcdv1.Caller{Kind: "anonymous"}, RemoteAddress: "127.0.0.1:7", ConnectTime: at},
	}
	return f
}

func TestClientsShowsWhoIsBehind(t *testing.T) {
	f := someClients(t)
	columns := "id,door,user,pid,command,calls,outstanding,behind,uses"
	f.ctl(t, "", "clients", "--columns", columns, "--sort", "behind", "--reverse").want(t, 0, ""+
		"ID  DOOR    USER                    PID  COMMAND     CALLS  OUTSTANDING  BEHIND  USES\n"+
		" 3  unix    4000000001               77  work\\x1ber      3            7      30  Receive /jobs (2 times), Consume /mail\n"+
		" 5  tcp     anonymous                 -  -               0            0       0  -\n"+
		" 6  tcp     4000000004 (CN=b)         -  -               0            0       0  -\n"+
		" 4  tcp     spiffe://example.org/a    -  -               0            0       0  -\n"+
		" 1  attach  4000000003               78  feed            0            0       0  produce /ticks\n", "")
	f.ctl(t, "", "clients", "/jo*", "--columns", "id,outstanding,behind,uses", "--no-headers").want(t, 0, "3  3  10  Receive /jobs (2 times)\n", "")
	f.ctl(t, "", "clients", "ticks", "--columns", "door,id", "--no-headers").want(t, 0, "attach  1\n", "")
	if r := f.ctl(t, "", "clients", "-o", "name"); r.exit != 2 || !strings.Contains(r.err, "table, wide, json, jsonl, yaml") {
		t.Errorf("connections have no names: exit %d, %q", r.exit, r.err)
	}
	f.ctl(t, "", "clients", "none").want(t, 0, "", "")
	f.ctl(t, "", "clients", "--columns", "id", "--no-headers").want(t, 0, "1\n3\n4\n5\n6\n", "")
	if r := f.ctl(t, "", "clients"); r.exit != 0 || !strings.HasPrefix(r.out, "ID  DOOR    USER                    PID  COMMAND     SINCE") {
		t.Errorf("exit %d:\n%s", r.exit, r.out)
	}
}

func TestClientsAreShownAsJSONThatStaysAsItIs(t *testing.T) {
	f := someClients(t)
	f.clients = []*ipcdv1.ClientConnection{f.clients[1], f.clients[2]}
	f.clients[0].UserAgent = "x"
	f.ctl(t, "", "clients", "-o", "json").want(t, 0, `{"clients":[
{"id":1,"door":"attach","caller":{"kind":"unix","uid":4000000003,"gid":0,"groups":[],"pid":78,"admin":false},"command":"feed","remote_address":"",`+
		`"connect_time":"2026-01-02T03:04:05.000000006Z","uses":[{"method":"produce","name":"/ticks","since":"2026-01-02T03:04:05.000000006Z","outstanding":0,"behind":0}],`+
		`"calls":0,"calls_total":0,"user_agent":"x"},
{"id":4,"door":"tcp","caller":{"kind":"certificate","uid":null,"gid":null,"groups":[],"pid":0,"name":"spiffe://example.org/a","admin":true},"command":"","remote_address":"192.0.2.1:7",`+
		`"connect_time":"2026-01-02T03:04:05.000000006Z","uses":[],"calls":0,"calls_total":0,"user_agent":""}
]}
`, "")
}

// someQuotas are those of a user, a certificate and anonymous callers.
func someQuotas(t *testing.T) *fake {
	f := startFake(t)
	f.quotas = []*ipcdv1.ListQuotasResponse{
		{Principal: &ipcdv1.Principal{Kind: &ipcdv1.Principal_Uid{Uid: 4000000001}}, Quotas: []*ipcdv1.Quota{
			{Resource: "queues", Used: 3, Limit: proto.Int64(10), Source: "set"}, {Resource: "queued_bytes", Used: 2048, Limit: proto.Int64(1 << 30), Source: "default"},
			{Resource: "streams", Limit: proto.Int64(1024), Source: "default"}, {Resource: "rings", Limit: proto.Int64(0), Source: "config"}}},
		{Principal: &ipcdv1.Principal{Kind: &ipcdv1.Principal_Certificate{Certificate: "CN=a"}}, Quotas: []*ipcdv1.Quota{{Resource: "streams", Used: 1, Source: "exempt"}}},
		{Principal: &ipcdv1.Principal{Kind: &ipcdv1.Principal_Anonymous{Anonymous: true}}, Quotas: []*ipcdv1.Quota{{Resource: "streams", Limit: proto.Int64(1), Source: "default"}}},
	}
	return f
}

func TestQuotaListsWhatIsUsedOrLimited(t *testing.T) {
	f := someQuotas(t)
	table := "" +
		"WHO               RESOURCE      USED      LIMIT  SOURCE\n" +
		"4000000001        queues           3         10  set\n" +
		"4000000001        queued_bytes  2KiB       1GiB  default\n" +
		"4000000001        rings            0          0  config\n" +
		"certificate CN=a  streams          1  unlimited  exempt\n"
	f.ctl(t, "", "quota").want(t, 0, table, "")
	f.ctl(t, "", "quota", "ls").want(t, 0, table, "")
	f.ctl(t, "", "quota", "--anonymous").want(t, 0, "WHO        RESOURCE  USED  LIMIT  SOURCE\nanonymous  streams      0      1  default\n", "")
	if r := f.ctl(t, "", "quota", "ls", "--all"); r.exit != 0 || strings.Count(r.out, "\n") != 7 {
		t.Errorf("exit %d:\n%s", r.exit, r.out)
	}
	f.ctl(t, "", "quota", "ls", "--user", "4000000001", "-o", "json").want(t, 0, `{"quotas":[
{"principal":{"uid":4000000001},"quotas":[{"resource":"queues","used":3,"limit":10,"source":"set"},{"resource":"queued_bytes","used":2048,"limit":1073741824,"source":"default"},`+
		`{"resource":"streams","used":0,"limit":1024,"source":"default"},{"resource":"rings","used":0,"limit":0,"source":"config"}]}
]}
`, "")
	f.ctl(t, "", "quota", "--certificate", "CN=a", "-o", "json").want(t, 0, "{\"quotas\":[\n{\"principal\":{\"certificate\":\"CN=a\"},\"quotas\":[{\"resource\":\"streams\",\"used\":1,\"source\":\"exempt\"}]}\n]}\n", "")
	f.ctl(t, "", "quota", "--user", "4000000009").want(t, 0, "", "4000000009 holds nothing and has no limits of its own\n")
	f.info.Caller.Admin = false
	f.ctl(t, "", "quota", "--user", "4000000009").want(t, 5, "", "ipcctl: the quota of 4000000009 is for admins and for its owner to see\n")
	f.info.Caller.Uid = proto.Uint32(4000000009)
	f.ctl(t, "", "quota", "--user", "4000000009").want(t, 0, "", "4000000009 holds nothing and has no limits of its own\n")
	f.ctl(t, "", "quota", "sett").want(t, 2, "", "ipcctl: unknown command \"quota sett\"; did you mean set?; see ipcctl quota --help\n")
}

func TestQuotaSetSendsWhatIsNamed(t *testing.T) {
	f := startFake(t)
	f.ctl(t, "", "quota", "set", "4000000001", "--queues", "10", "--queued-bytes", "1GiB", "--streams", "unlimited", "--rings", "0").want(t, 0, "",
		"4000000001: queues 10 (set), 2 used\n4000000001: rings 0 (set), 2 used\n4000000001: queued_bytes 1GiB (set), 2B used\n4000000001: streams unlimited (set), 2 used\n")
	want := `{"principal":{"uid":4000000001},"limits":{"queued_bytes":"1073741824","queues":"10","rings":"0"},"unlimited":["streams"]}`
	if got := protoJSON(t, seen[*ipcdv1.SetQuotaRequest](t, f)); got != want {
		t.Errorf("sent\n%s\nwant\n%s", got, want)
	}
	f.ctl(t, "", "quota", "set", "--certificate", "spiffe://example.org/a", "--connections", "1").want(t, 0, "", "certificate spiffe://example.org/a: connections 1 (set), 2 used\n")
	f.ctl(t, "", "quota", "set", "--anonymous", "--receivers", "1").want(t, 0, "", "anonymous: receivers 1 (set), 2 used\n")
	for args, says := range map[string]string{
		"--queues 1": "say whose", "1000": "nothing to set", "1000 --queues x": "or unlimited", "1000 --queues -1": "whole number", "1000 --anonymous --queues 1": "exclude each other",
		"1000 1001 --queues 1": "takes one user", "no-such-user --queues 1": "knows no user", "1000 --queued-bytes 1GX": "or unlimited",
	} {
		if r := f.ctl(t, "", append([]string{"quota", "set"}, strings.Fields(args)...)...); r.exit != 2 || !strings.Contains(r.err, says) {
			t.Errorf("quota set %s: exit %d, stderr %q, want %q", args, r.exit, r.err, says)
		}
	}
}

func TestQuotaResetForgetsWhatIsNamedOrAll(t *testing.T) {
	f := startFake(t)
	f.ctl(t, "", "quota", "reset", "4000000001", "--queues", "--queued-bytes").want(t, 0, "", "4000000001: queues 2048 (default), 2 used\n4000000001: queued_bytes 2KiB (default), 2B used\n")
	if got := protoJSON(t, seen[*ipcdv1.SetQuotaRequest](t, f)); got != `{"principal":{"uid":4000000001},"reset":["queues","queued_bytes"]}` {
		t.Errorf("sent %s", got)
	}
	if r := f.ctl(t, "", "quota", "reset", "--anonymous"); r.exit != 0 || strings.Count(r.err, "\n") != 6 {
		t.Errorf("exit %d, %s", r.exit, r.err)
	}
	if got := seen[*ipcdv1.SetQuotaRequest](t, f); len(got.Reset_) != 6 || !got.Principal.GetAnonymous() {
		t.Errorf("sent %v", got)
	}
	if r := f.ctl(t, "", "quota", "reset"); r.exit != 2 {
		t.Errorf("of nobody: exit %d", r.exit)
	}
}

func TestCompletionKnowsUsersWithQuotas(t *testing.T) {
	f := someQuotas(t)
	for args, want := range map[string]string{
		"quota set ": "4000000001\n:4\n", "quota ls --user 4": "4000000001\n:4\n", "quota set --streams ": "unlimited\n:4\n", "quota set 1 ": ":4\n",
	} {
		if r := f.ctl(t, "", append([]string{"__complete"}, strings.Split(args, " ")...)...); r.exit != 0 || r.out != want {
			t.Errorf("%s: exit %d, stdout %q, want %q; stderr %q", args, r.exit, r.out, want, r.err)
		}
	}
}

func TestInfoTellsOfCertificates(t *testing.T) {
	f := startFake(t)
	for want, caller := range map[string]*ipcdv1.Caller{
		"anonymous":                          {Kind: "anonymous"},
		"certificate spiffe://example.org/a": {Kind: "certificate", Name: "spiffe://example.org/a"},
		"certificate CN=a, acting as 4000000001:4000000002 (uid 4000000001, gid 4000000002), an admin": {Kind: "certificate", Name: "CN=a", Uid: proto.Uint32(4000000001), Gid: proto.Uint32(4000000002), Admin: true},
	} {
		f.info.Caller = caller
		if r := f.ctl(t, "", "info"); r.exit != 0 || !strings.Contains(r.out, "  takes you for       "+want+"\n") {
			t.Errorf("no %q in:\n%s", want, r.out)
		}
	}
}

func TestDaemonThatDoesNotAnswerIsUnreachable(t *testing.T) {
	f := startFake(t)
	f.info = nil // it hangs
	for _, command := range []string{"info", "ls", "quota --user 4000000009"} {
		r := f.ctl(t, "", append(strings.Fields(command), "--timeout", "50ms")...)
		if r.exit != 4 || r.out != "" || !strings.HasPrefix(r.err, "ipcctl: no answer from ") || !strings.HasSuffix(r.err, " within 50ms: it hangs, or is stopped, or needs longer (--timeout)\n") {
			t.Errorf("%s: exit %d, stderr %q", command, r.exit, r.err)
		}
	}
}

func TestDamagedQueuesAreListedAsSuch(t *testing.T) {
	f := startFake(t)
	f.add("/bad")
	f.add("/good")
	f.ctl(t, "", "ls", "--columns", "name,status", "--no-headers").want(t, 0, "/bad   damaged\n/good  ok\n", "")
}
