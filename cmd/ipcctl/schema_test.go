package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

const orderProto = `syntax = "proto3";
package acme;
import "acme/item.proto";
import "google/protobuf/timestamp.proto";
message Order {
  int64 id = 1;
  optional string note = 2;
  repeated Item items = 3;
  map<string, State> states = 4;
  oneof paid {
    bool cash = 5;
    double card = 6 [json_name = "plastic"];
  }
  google.protobuf.Timestamp at = 7;
  reserved 9;
  reserved 20 to 29;
  reserved "old";
  enum State {
    UNKNOWN = 0;
    OPEN = 1;
  }
}
`

const itemProto = `syntax = "proto2";
package acme;
message Item {
  required string name = 1;
  extensions 100 to max;
}
extend acme.Item {
  optional int32 extra = 100;
}
`

// protoFiles writes the files and returns the path of order.proto, and the directory that imports are relative to.
func protoFiles(t *testing.T) (order, root string) {
	t.Helper()
	root = t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "acme"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"order.proto": orderProto, "item.proto": itemProto} {
		if err := os.WriteFile(filepath.Join(root, "acme", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(root, "acme", "order.proto"), root
}

// withSchema is a fake with the queue /orders, whose type 7 (created) is acme.Order.
func withSchema(t *testing.T) (f *fake, order, root string) {
	t.Helper()
	f = startFake(t)
	f.add("/orders")
	order, root = protoFiles(t)
	f.ctl(t, "", "schema", "set", "orders", order, "-I", root, "--type", "created=acme.Order", "--validate").
		want(t, 0, "", "version 1 of the schema of /orders is registered: sends of created are validated\n")
	return f, order, root
}

func TestSchemaSetCompilesAndRegisters(t *testing.T) {
	f, order, root := withSchema(t)
	r := seen[*ipcdv1.RegisterSchemaRequest](t, f)
	if len(r.Types) != 1 || r.Types[0].Type != 7 || r.Types[0].Message != "acme.Order" || !r.Types[0].Validate || r.AllowIncompatible || r.DryRun {
		t.Errorf("%v", r.Types)
	}
	f.ctl(t, "", "schema", "set", "orders", order, "-I", root, "--type", "7=acme.Order", "--validate").
		want(t, 0, "", "version 1 of the schema of /orders is the same: nothing changed, sends of 7 are validated\n")
	f.ctl(t, "", "schema", "set", "orders", order, "-I", root, "--type", "7=acme.Order", "--type", "8=acme.Item", "-o", "json").
		want(t, 0, `{"queue":"/orders","version":2,"created":true,"types":[{"type":7,"message":"acme.Order","validate":true},{"type":8,"message":"acme.Item","validate":false}],"incompatibilities":[]}`+"\n", "")
	f.ctl(t, "", "schema", "set", "orders", order, "-I", root, "--type", "7=acme.Order", "--validate=false", "-o", "json").
		want(t, 0, `{"queue":"/orders","version":3,"created":true,"types":[{"type":7,"message":"acme.Order","validate":false}],"incompatibilities":[]}`+"\n", "")
}

func TestANextVersionOfASchemaValidatesWhatTheOneBeforeDid(t *testing.T) {
	f, order, root := withSchema(t)
	for _, c := range []struct{ command, flags, want string }{
		{"check", "--type 7=acme.Order", "it is version 1 of /orders: sends of 7 are validated"},
		{"check", "--type created=acme.Order --type 8=acme.Item", "programs that know version 1 of /orders get along with it; with it sends of created are validated, sends of 8 are not checked"},
		{"check", "--type 7=acme.Order --no-validate", "programs that know version 1 of /orders get along with it; with it sends of 7 are not checked"},
		{"set", "--type 7=acme.Order --type 8=acme.Item", "version 2 of the schema of /orders is registered: sends of 7 are validated, sends of 8 are not checked"},
		{"set", "--type 8=acme.Item --validate", "version 3 of the schema of /orders is registered: sends of 8 are validated"},
		{"set", "--type 7=acme.Order --type 8=acme.Item", "version 4 of the schema of /orders is registered: sends of 8 are validated, sends of 7 are not checked"},
		{"set", "--type 7=acme.Order --type 8=acme.Item --validate", "version 5 of the schema of /orders is registered: sends of 7, 8 are validated"},
		{"set", "--type 7=acme.Order --type 8=acme.Item --validate=false", "version 6 of the schema of /orders is registered: sends of 7, 8 are not checked"},
		{"set", "--type 7=acme.Order --validate", "version 7 of the schema of /orders is registered: sends of 7 are validated"},
		{"set", "--type 7=acme.Order --no-validate", "version 8 of the schema of /orders is registered: sends of 7 are not checked"},
	} {
		args := append([]string{"schema", c.command, "orders", order, "-I", root}, strings.Fields(c.flags)...)
		f.ctl(t, "", args...).want(t, 0, "", c.want+"\n")
	}
	if r := f.ctl(t, "", "schema", "set", "orders", order, "-I", root, "--type", "7=acme.Order", "--validate", "--no-validate"); r.exit != 2 {
		t.Errorf("exit %d, stderr %s", r.exit, r.err)
	}
}

func TestSchemaSetTakesDescriptorSets(t *testing.T) {
	f, _, _ := withSchema(t)
	set := filepath.Join(t.TempDir(), "order.binpb")
	r := f.ctl(t, "", "schema", "show", "orders", "-o", "descriptor")
	if err := os.WriteFile(set, []byte(r.out), 0o644); err != nil {
		t.Fatal(err)
	}
	f.ctl(t, "", "schema", "set", "orders", set, "--type", "7=acme.Order", "--validate").
		want(t, 0, "", "version 1 of the schema of /orders is the same: nothing changed, sends of 7 are validated\n")
}

func TestSchemaCheckListsWhatWouldBreak(t *testing.T) {
	f, order, root := withSchema(t)
	small := filepath.Join(t.TempDir(), "small.proto")
	if err := os.WriteFile(small, []byte(`syntax = "proto3"; package acme; message Order {}`), 0o644); err != nil {
		t.Fatal(err)
	}
	found := "field 1 (id) of acme.Order is gone\nvalue 1 (\\x1b) is gone\n"
	f.ctl(t, "", "schema", "check", "orders", small, "--type", "7=acme.Order").want(t, 1, found, "with it sends of 7 are validated\n")
	f.ctl(t, "", "schema", "set", "orders", small, "--type", "7=acme.Order", "--dry-run").want(t, 1, found, "with it sends of 7 are validated\n")
	f.ctl(t, "", "schema", "check", "orders", small, "--type", "7=acme.Order", "--allow-incompatible").want(t, 0, found, "with it sends of 7 are validated\n")
	f.ctl(t, "", "schema", "check", "orders", order, "-I", root, "--type", "7=acme.Order", "--type", "8=acme.Item").
		want(t, 0, "", "programs that know version 1 of /orders get along with it; with it sends of 7 are validated, sends of 8 are not checked\n")
	r := f.ctl(t, "", "schema", "set", "orders", small, "--type", "7=acme.Order")
	if r.exit != 1 || r.out != "" || !strings.HasPrefix(r.err, found+"ipcctl: ") {
		t.Errorf("exit %d, stdout %q, stderr %q", r.exit, r.out, r.err)
	}
	f.ctl(t, "", "schema", "set", "orders", small, "--type", "7=acme.Order", "--allow-incompatible").
		want(t, 0, "", "allowed: field 1 (id) of acme.Order is gone\nallowed: value 1 (\\x1b) is gone\nversion 2 of the schema of /orders is registered: sends of 7 are validated\n")
}

func TestSchemaShowsWhatBodiesAre(t *testing.T) {
	f, _, _ := withSchema(t)
	f.ctl(t, "", "schema", "show", "orders", "-o", "json").want(t, 0,
		`{"queue":"/orders","version":1,"create_time":"2026-01-02T03:04:05.000000006Z","versions":[1],"types":[{"type":7,"type_name":"created","message":"acme.Order","validate":true}],`+
			`"files":["acme/item.proto","acme/order.proto","google/protobuf/timestamp.proto"]}`+"\n", "")
	if r := f.ctl(t, "", "schema", "show", "orders"); r.exit != 0 || !strings.Contains(r.out, "   7  created  acme.Order  validated\n") {
		t.Errorf("exit %d, %s", r.exit, r.out)
	}
	// What it is made of reads as it was written, but for full names and the order of declarations.
	want := "// acme/item.proto\n" + strings.Replace(itemProto, "message Item {\n  required string name = 1;\n  extensions 100 to max;\n}\nextend acme.Item {\n  optional int32 extra = 100;\n}\n",
		"extend acme.Item {\n  optional int32 extra = 100;\n}\nmessage Item {\n  required string name = 1;\n  extensions 100 to max;\n}\n", 1) +
		"\n// acme/order.proto\n" + strings.NewReplacer(" Item items", " acme.Item items", ", State>", ", acme.Order.State>").Replace(orderProto)
	f.ctl(t, "", "schema", "show", "orders", "-o", "proto").want(t, 0, want, "")
	f.ctl(t, "", "schema", "show", "orders", "--version", "9").want(t, 3, "", "ipcctl: /orders: the queue has no schema: register one first\n")
}

func TestSchemaRmNeedsToBeMeant(t *testing.T) {
	f, _, _ := withSchema(t)
	f.ctl(t, "", "schema", "rm", "orders").want(t, 2, "", "ipcctl: refusing to remove the schema of /orders without --force, for there is no terminal to ask on\n")
	f.ctl(t, "", "schema", "rm", "orders", "--force").want(t, 0, "", "removed the schema of /orders\n")
	f.ctl(t, "", "schema", "show", "orders").want(t, 3, "", "ipcctl: /orders: the queue has no schema: register one first\n")
}

func TestSendEncodesJSONAndPeekDecodesIt(t *testing.T) {
	f, _, _ := withSchema(t)
	const order = `{"id":"17","note":"a\u001bb","items":[{"name":"x","[acme.extra]":3}],"states":{"k":"OPEN"},"plastic":1.5}`
	f.ctl(t, "", "send", "orders", "--json", order).want(t, 0, "1\n", "")
	if m := f.queues["/orders"].messages[0].Message; m.Type != 7 || strings.Contains(string(m.Body), "{") {
		t.Errorf("type %d, body %q", m.Type, m.Body)
	}
	f.ctl(t, "", "peek", "orders", "-o", "jsonl").want(t, 0,
		`{"queue":"/orders","sequence":1,"state":"ready","type":7,"type_name":"created","message_type":"acme.Order","priority":0,"json":`+order+
			`,"headers":{},"send_time":"2026-01-02T03:04:05.000000006Z","attempts":0}`+"\n", "")
	r := f.ctl(t, "", "peek", "orders")
	if !strings.Contains(r.out, "type created (7)  acme.Order  sent ") || !strings.Contains(r.out, "\n    "+order+"\n") {
		t.Errorf("%s", r.out)
	}
	r = f.ctl(t, "", "recv", "orders", "-o", "jsonl")
	if !strings.Contains(r.out, `"json":{"id":"17"`) || strings.Contains(r.out, `"body`) {
		t.Errorf("%s", r.out)
	}
	r = f.ctl(t, "", "peek", "orders", "--state", "all", "-o", "raw")
	if r.out != string(f.queues["/orders"].messages[0].Message.Body)+"\n" {
		t.Errorf("%q", r.out)
	}
}

func TestSendEncodesEachLineOfJSON(t *testing.T) {
	f, _, _ := withSchema(t)
	r := f.ctl(t, "{\"id\":1}\n{\"id\":2}\n{\"nothing\":3}\n", "send", "orders", "--type", "created", "--json", "--lines")
	if r.exit != 1 || !strings.Contains(r.err, "line 3: ") || !strings.Contains(r.err, "acme.Order") || f.states("/orders") != "1 ready, 2 ready" {
		t.Errorf("exit %d, %s; %s", r.exit, r.err, f.states("/orders"))
	}
}

// Nothing is lost where a body is not, or not only, what the schema says.
func TestBodiesThatTheSchemaDoesNotExplainAreShownAsTheyAre(t *testing.T) {
	f, _, _ := withSchema(t)
	q := f.queues["/orders"]
	q.put(&ipcdv1.Message{Type: 7, Body: []byte("hello")})
	q.put(&ipcdv1.Message{Type: 7, Body: []byte{0x08, 0x01, 0x50, 0x01}})
	q.put(&ipcdv1.Message{Type: 1, Body: []byte("plain")})
	r := f.ctl(t, "", "peek", "orders", "-o", "jsonl")
	lines := strings.Split(r.out, "\n")
	for i, want := range [][]string{
		{`"message_type":"acme.Order"`, `"body":"hello"`, `"schema_error":`},
		{`"body":"\b\u0001P\u0001"`, `"json":{"id":"1"}`, `"schema_error":"field 10 is not known to acme.Order"`},
		{`"body":"plain"`},
	} {
		for _, w := range want {
			if !strings.Contains(lines[i], w) {
				t.Errorf("%s is not in %s", w, lines[i])
			}
		}
	}
	if strings.Contains(lines[0], `"json"`) || strings.Contains(lines[2], "schema") || strings.Contains(lines[2], "message_type") {
		t.Errorf("%s", r.out)
	}
	r = f.ctl(t, "", "peek", "orders")
	if !strings.Contains(r.out, "schema: field 10 is not known to acme.Order\n") || !strings.Contains(r.out, "\n    hello\n") {
		t.Errorf("%s", r.out)
	}
}

func TestSchemaCommandsSayWhatIsWrong(t *testing.T) {
	f, order, root := withSchema(t)
	bad := filepath.Join(t.TempDir(), "bad.proto")
	if err := os.WriteFile(bad, []byte("syntax = \"proto3\";\nmessage {}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	text := filepath.Join(t.TempDir(), "text.pb")
	if err := os.WriteFile(text, []byte("hello"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args string
		exit int
		want string
	}{
		{"schema", 2, "say what to do: ipcctl schema set|check|show|rm"},
		{"schema sett", 2, `unknown command "schema sett"; did you mean`},
		{"schema set orders", 2, "name a queue and a file"},
		{"schema set orders a b", 2, "one queue and one file"},
		{"schema set orders " + order, 2, "say which type is which message"},
		{"schema set orders " + order + " --type 7", 2, "such as 7=acme.Order"},
		{"schema set orders " + order + " --type paid=acme.Order -I " + root, 2, "--type"},
		{"schema set orders " + order + " --type 7=acme.Order", 1, "acme/item.proto"},
		{"schema set orders " + order + " --type 7=acme.Order -I " + filepath.Dir(bad), 2, "-I names"},
		{"schema set orders /nowhere/x.proto --type 7=acme.Order", 1, "no such file"},
		{"schema set orders " + bad + " --type 7=acme.Order", 1, "bad.proto:2:9"},
		{"schema set orders " + text + " --type 7=acme.Order", 1, "is no descriptor set"},
		{"schema set none " + order + " -I " + root + " --type 7=acme.Order", 3, "/none"},
		{"send orders --json --type 8 {}", 2, "has no message for type 8, but for type 7"},
		{"send orders --json {", 1, "is no acme.Order in JSON"},
		{"send none --json {}", 3, "/none"},
	} {
		r := f.ctl(t, "", strings.Fields(c.args)...)
		if r.exit != c.exit || !strings.Contains(r.err, c.want) {
			t.Errorf("%s: exit %d, %swant %d, %q", c.args, r.exit, r.err, c.exit, c.want)
		}
	}
	f.ctl(t, "", "schema", "set", "orders", order, "-I", root, "--type", "7=acme.Order", "--type", "8=acme.Item", "--allow-incompatible")
	r := f.ctl(t, "", "send", "orders", "--json", "{}")
	if r.exit != 2 || !strings.Contains(r.err, "--json needs --type: the schema of /orders has messages for type 7, 8") {
		t.Errorf("exit %d, %s", r.exit, r.err)
	}
}
