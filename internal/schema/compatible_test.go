package schema

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/ipcd/ipcd/internal/limits"
)

func TestWhatProgramsCouldTripOverIsFound(t *testing.T) {
	const head = `syntax = "proto3"; package p; `
	const message = head + `message M { int32 a = 1; string b = 2; E e = 3; oneof o { int32 x = 4; int32 y = 5; } map<string, int32> m = 6; N n = 7; repeated int32 l = 8; reserved 9, 20 to 30; reserved "old"; } ` +
		`message N { int32 a = 1; } enum E { ZERO = 0; ONE = 1; }`
	change := func(old, new string) string {
		if !strings.Contains(message, old) {
			t.Fatalf("%q is not in the message", old)
		}
		return strings.Replace(message, old, new, 1)
	}
	for _, c := range []struct {
		name, new string
		want      []string // parts of what is found, in order
	}{
		{"the same", message, nil},
		{"a field more", change("int32 a = 1;", "int32 a = 1; int32 c = 10;"), nil},
		{"a value more", change("ONE = 1;", "ONE = 1; TWO = 2;"), nil},
		{"reserved and gone", change(`int32 a = 1;`, `reserved 1; reserved "a";`), nil},
		{"optional", change("int32 a = 1;", "optional int32 a = 1;"), nil},
		{"reserved more", change("20 to 30", "15 to 25, 26 to 40"), nil},
		{"gone", change("int32 a = 1;", ""), []string{"field 1 (a) of p.M is gone: reserve"}},
		{"gone and half reserved", change("int32 a = 1;", "reserved 1;"), []string{"field 1 (a) of p.M is gone: reserve"}},
		{"kind", change("int32 a = 1;", "int64 a = 1;"), []string{"field 1 (a) of p.M was int32 and would be int64"}},
		{"repeated", change("int32 a = 1;", "repeated int32 a = 1;"), []string{"would be repeated int32"}},
		{"renamed", change("string b = 2;", "string bee = 2;"), []string{"would be called p.M.bee"}},
		{"renamed in JSON", change("string b = 2;", `string b = 2 [json_name="z"];`), []string{`was "b" in JSON and would be "z"`}},
		{"moved", change("int32 a = 1;", "int32 a = 11;"), []string{"field 1 (a) of p.M is gone"}},
		{"into a oneof", change("int32 a = 1;", "oneof q { int32 a = 1; }"), []string{"was in no oneof and would be in oneof q"}},
		{"out of a oneof", change("int32 y = 5; }", "} int32 y = 5;"), []string{"was in oneof o and would be in no oneof"}},
		{"no map", change("map<string, int32> m = 6;", "repeated int32 m = 6;"), []string{"was a map and would be repeated int32"}},
		{"another map", change("map<string, int32>", "map<string, string>"), []string{"was int32 and would be string"}},
		{"value gone", change("ONE = 1;", ""), []string{"value 1 (ONE) of enum p.E is gone"}},
		{"value renamed", change("ONE = 1;", "UNO = 1;"), []string{"would be called UNO"}},
		{"value moved", change("ONE = 1;", "ONE = 2;"), []string{"value ONE of enum p.E was 1 and would be 2"}},
		{"another message", change("N n = 7;", "M n = 7;"), []string{"was message p.N and would be message p.M"}},
		{"within", strings.Replace(message, "message N { int32 a = 1; }", "message N { string a = 1; }", 1), []string{"field 1 (a) of p.N was int32"}},
		{"reserved number taken", strings.Replace(change("reserved 9, 20 to 30;", "reserved 20 to 30;"), "int32 a = 1;", "int32 a = 1; int32 c = 9;", 1), []string{"field 9 (c) of p.M has a number that was reserved"}},
		{"reserved name taken", strings.Replace(change(`reserved "old";`, ""), "int32 a = 1;", "int32 a = 1; int32 old = 10;", 1), []string{"field 10 (old) of p.M has a name that was reserved"}},
		{"reservation given up", change("20 to 30", "20 to 24, 26 to 30"), []string{"number 25 of p.M is not reserved"}},
		{"name's reservation given up", change(`reserved "old";`, ""), []string{"name old of p.M is not reserved"}},
		{"message gone", strings.ReplaceAll(message, "M {", "K {"), []string{"type 7 was p.M and has no message any more"}},
	} {
		is := compile(t, c.new)
		bound := []Binding{{7, "p.M", false}}
		if is.Check(bound) != nil {
			bound = nil
		}
		found := Incompatibilities(compile(t, message), is, []Binding{{7, "p.M", false}}, bound)
		ok := len(found) >= len(c.want) && (len(c.want) > 0 || len(found) == 0)
		for i, want := range c.want {
			ok = ok && strings.Contains(found[i], want)
		}
		if !ok {
			t.Errorf("%s: found %q, want %q", c.name, found, c.want)
		}
	}
}

func TestChangesOfRequiredFieldsAreFound(t *testing.T) {
	const head = `syntax = "proto2"; package p; `
	const old = head + `message M { required int32 a = 1; optional int32 b = 2; required int32 c = 3; extensions 10 to 20; } extend M { optional int32 x = 10; } enum E { A = 1; }`
	const new = head + `message M { optional int32 a = 1; required int32 b = 2; required int32 d = 4; reserved 3; reserved "c"; extensions 10 to 20; }`
	found := strings.Join(Incompatibilities(compile(t, old), compile(t, new), []Binding{{1, "p.M", false}}, []Binding{{1, "p.M", false}}), "\n")
	for _, want := range []string{
		"field 1 (a) of p.M is not required any more", "field 2 (b) of p.M would be required",
		"field 3 (c) of p.M, which was required, is gone", "field 4 (d) of p.M is new and required", "extension 10 (p.x) of p.M is gone",
	} {
		if !strings.Contains(found, want) {
			t.Errorf("%q is not among\n%s", want, found)
		}
	}
}

func TestOpenEnumsMayNotBeClosed(t *testing.T) {
	was := compile(t, `edition = "2023"; package p; message M { E e = 1; } enum E { A = 0; }`)
	is := compile(t, `edition = "2023"; package p; message M { E e = 1; } enum E { option features.enum_type = CLOSED; A = 0; }`)
	bound := []Binding{{1, "p.M", false}}
	if found := Incompatibilities(was, is, bound, bound); len(found) != 1 || !strings.Contains(found[0], "would not take other values") {
		t.Errorf("%q", found)
	}
	if found := Incompatibilities(is, was, bound, bound); len(found) != 0 {
		t.Errorf("%q", found)
	}
}

// A reader ignores a field that is gone; a queue that validates refuses the writer who still has it.
func TestWhereBodiesAreValidatedNoFieldMayGo(t *testing.T) {
	was := compile(t, `syntax = "proto3"; package p; message M { N n = 1; } message N { int32 a = 1; int32 b = 2; }`)
	is := compile(t, `syntax = "proto3"; package p; message M { N n = 1; } message N { int32 a = 1; reserved 2; reserved "b"; }`)
	plain, strict := []Binding{{1, "p.M", false}}, []Binding{{1, "p.M", true}}
	if found := Incompatibilities(was, is, strict, plain); len(found) != 0 {
		t.Errorf("%q", found)
	}
	want := []string{"field 2 (b) of p.N is gone, and sends that have it would be refused"}
	if found := Incompatibilities(was, is, plain, strict); !slices.Equal(found, want) {
		t.Errorf("%q", found)
	}
}

func TestTypesMayNotChangeTheirMessage(t *testing.T) {
	s := compile(t, orders)
	found := Incompatibilities(s, s, []Binding{{9, "acme.Item", false}, {7, "acme.Order", false}, {8, "acme.Item", false}}, []Binding{{7, "acme.Item", false}, {9, "acme.Item", true}, {10, "acme.Order", false}})
	want := []string{"type 7 was acme.Order and would be acme.Item", "type 8 was acme.Item and has no message any more"}
	if !slices.Equal(found, want) {
		t.Errorf("%q", found)
	}
}

func TestOnlySoManyIncompatibilitiesAreTold(t *testing.T) {
	var fields strings.Builder
	for i := range 150 {
		fmt.Fprintf(&fields, " int32 f%d = %d;", i+1, i+1)
	}
	was := compile(t, `syntax = "proto3"; package p; message M {`+fields.String()+`}`)
	is := compile(t, `syntax = "proto3"; package p; message M {}`)
	bound := []Binding{{1, "p.M", false}}
	found := Incompatibilities(was, is, bound, bound)
	if len(found) != limits.SchemaFindings+1 || found[limits.SchemaFindings] != "and 50 more" {
		t.Errorf("%d: %q", len(found), found[len(found)-1])
	}
}
