package main

import (
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/ipcd/ipcd/client"
	"github.com/ipcd/ipcd/internal/reason"
)

// check runs a parser over texts; a nil want means that the text must be refused.
func check[T comparable](t *testing.T, parse func(string) (T, error), want map[string]*T) {
	t.Helper()
	for text, w := range want {
		got, err := parse(text)
		switch {
		case w == nil && err == nil:
			t.Errorf("%q was read as %v, want an error", text, got)
		case w != nil && (err != nil || got != *w):
			t.Errorf("%q: got %v, %v, want %v", text, got, err, *w)
		}
	}
}

func TestSizesAreReadInBinaryAndDecimalUnits(t *testing.T) {
	check(t, parseSize, map[string]*uint64{
		"0": new(uint64(0)), "512": new(uint64(512)), "64KiB": new(uint64(65536)), "64k": new(uint64(65536)), "64kB": new(uint64(64000)),
		"16 MiB": new(uint64(16 << 20)), "1GiB": new(uint64(1 << 30)), "8388607TiB": new(uint64(8388607 << 40)),
		"": nil, "-1": nil, "1.5MiB": nil, "KiB": nil, "1XB": nil, "8388608TiB": nil, "99999999999999999999": nil, "0x10": nil,
	})
}

func TestDurationsTakeDays(t *testing.T) {
	check(t, parseDuration, map[string]*time.Duration{
		"0": new(time.Duration(0)), "500ms": new(500 * time.Millisecond), "1h30m": new(90 * time.Minute), "2d": new(48 * time.Hour), "1d12h": new(36 * time.Hour),
		"": nil, "30": nil, "-1s": nil, "d": nil, "1d-1h": nil, "106752d": nil, "99999999999999999999d": nil, "1dd": nil, "106751d24h": nil,
	})
}

func TestSequenceRanges(t *testing.T) {
	check(t, parseSequences, map[string]*sequences{
		"10-20": {10, 20}, "10-": {10, 0}, "-20": {0, 20}, "10": {10, 10},
		"": nil, "-": nil, "20-10": nil, "0": nil, "a-b": nil, "1-2-3": nil, "-0": nil,
	})
}

func TestHeadersNeedANameAndTakeAnyValue(t *testing.T) {
	check(t, parseHeader, map[string]*header{
		"k=v": {"k", "v"}, "k=": {"k", ""}, "k=a=b": {"k", "a=b"}, "k=\xff": {"k", "\xff"},
		"": nil, "=v": nil, "k": nil, "\xff=v": nil,
	})
}

func TestModesAreOctalPermissionBits(t *testing.T) {
	check(t, parseMode, map[string]*uint32{"0660": new(uint32(0o660)), "600": new(uint32(0o600)), "0o640": new(uint32(0o640)), "0": new(uint32(0)), "1777": nil, "999": nil, "rw": nil, "": nil})
}

func TestDelimitersTakeEscapes(t *testing.T) {
	check(t, parseDelimiter, map[string]*string{
		"": new(""), `\0`: new("\x00"), `\n--\n`: new("\n--\n"), `\t`: new("\t"), `\xff`: new("\xff"), `\\`: new(`\`), "é": new("é"), "\xff": new("\xff"), `a\0b`: new("a\x00b"),
		`\q`: nil, `\`: nil, `\x1`: nil,
	})
}

func TestTypesArePositive(t *testing.T) {
	check(t, parseType, map[string]*int64{"1": new(int64(1)), "9223372036854775807": new(int64(math.MaxInt64)), "0": nil, "-1": nil, "+1": nil, "x": nil, "": nil, "9223372036854775808": nil})
}

func TestTimesAreRFC3339OrLocal(t *testing.T) {
	utc, err := parseTime("2026-01-31T15:04:05Z")
	if err != nil || !utc.Equal(time.Date(2026, 1, 31, 15, 4, 5, 0, time.UTC)) {
		t.Errorf("got %v, %v", utc, err)
	}
	local, err := parseTime("2026-01-31 15:04")
	if err != nil || !local.Equal(time.Date(2026, 1, 31, 15, 4, 0, 0, time.Local)) {
		t.Errorf("got %v, %v", local, err)
	}
	if got, err := parseTime("tomorrow"); err == nil {
		t.Errorf("tomorrow was read as %v", got)
	}
}

func TestTypeNamesAreReadInOneListOrSeveral(t *testing.T) {
	names, err := parseTypeNames("created=7,failed=8")
	if err != nil || len(names) != 2 || names["created"] != 7 || names["failed"] != 8 {
		t.Errorf("got %v, %v", names, err)
	}
	if names, err := parseTypeNames(""); err != nil || len(names) != 0 {
		t.Errorf("nothing was read as %v, %v", names, err)
	}
	for _, bad := range []string{"created", "created=x", "=7", "created=0", "a=1,b"} {
		if names, err := parseTypeNames(bad); err == nil {
			t.Errorf("%q was read as %v", bad, names)
		}
	}
}

func TestEscapingLetsNothingActOnATerminal(t *testing.T) {
	for text, want := range map[string]string{
		"plain":           "plain",
		"\x1b[31mred":     `\x1b[31mred`,
		"bell\a\b\x7f":    `bell\x07\x08\x7f`,
		"a\r\n\tb":        `a\r\n\tb`,
		"csi \u009b31m":   `csi \u009b31m`,
		"bidi \u202eevil": `bidi \u202eevil`,
		"\u2066\u200f":    `\u2066\u200f`,
		"\u2028\u2029":    `\u2028\u2029`,
		"\ufeffbom":       `\ufeffbom`,
		"tag \U000e0041":  `tag \U000e0041`,
		"bad \xff\xc3":    `bad \xff\xc3`,
		"äöü 日本 🎉":        "äöü 日本 🎉",
		"new \u0378":      `new \u0378`,
		"replaced \ufffd": "replaced \ufffd",
		"\u3000wide":      "\u3000wide",
	} {
		if got := escapeLine(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
	if got, want := escapeText("one\n#2 two\x1b", "    "), "one\n    #2 two\\x1b"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func FuzzEscapingIsSafeAndJSONKeepsItsMeaning(f *testing.F) {
	for _, seed := range []string{"", "a\x1b[0m", "\xff\xfe", "\u202e", "\U000e0001", "日本", "\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		line := escapeLine(s)
		for _, r := range line {
			if r < ' ' || r >= 0x7f && r < 0xa0 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
				t.Fatalf("%q became %q, which has %U", s, line, r)
			}
		}
		if !utf8.ValidString(line) {
			t.Fatalf("%q became %q, which is no UTF-8", s, line)
		}
		text, err := marshalJSON(s)
		if err != nil {
			t.Fatal(err)
		}
		var back string
		if err := json.Unmarshal(text, &back); err != nil {
			t.Fatalf("%q became %s: %v", s, text, err)
		}
		if utf8.ValidString(s) && back != s {
			t.Fatalf("%q came back from %s as %q", s, text, back)
		}
		if escapeLine(string(text)) != string(text) {
			t.Fatalf("%q became %q, which acts on a terminal", s, text)
		}
	})
}

func FuzzParsersRefuseOrUnderstand(f *testing.F) {
	for _, seed := range []string{"64KiB", "1d12h", "10-20", "a=1,b=2", "0660", `\xff\0`, "upto:7", "!created", "<=1,2", "9223372036854775807", "106751d24h"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := parseSize(s); err == nil && n > math.MaxInt64 {
			t.Errorf("size %q is %d", s, n)
		}
		if d, err := parseDuration(s); err == nil && d < 0 {
			t.Errorf("duration %q is %v", s, d)
		}
		if r, err := parseSequences(s); err == nil && (r == sequences{} || r.last != 0 && r.first > r.last) {
			t.Errorf("sequences %q are %v", s, r)
		}
		if names, err := parseTypeNames(s); err == nil {
			for name, typ := range names {
				if name == "" || typ <= 0 {
					t.Errorf("type names %q have %q=%d", s, name, typ)
				}
			}
		}
		if m, err := parseMode(s); err == nil && m > 0o777 {
			t.Errorf("mode %q is %o", s, m)
		}
		_, _ = parseDelimiter(s)
		if selector, err := client.ParseSelector(s, nil); err == nil {
			again, err := client.ParseSelector(selector.String(), nil)
			if err != nil || again.String() != selector.String() {
				t.Errorf("selector %q is %v, which is read as %v, %v", s, selector, again, err)
			}
		}
		if q := quoteArg(s); len(q) > 10*84 || strings.ContainsAny(q, "\n\x1b") {
			t.Errorf("%q was quoted as %q", s, q)
		}
	})
}

func TestTablesAlignWideCharacters(t *testing.T) {
	table := table{headers: true, columns: []column{{"NAME", false}, {"N", true}, {"LAST", false}},
		rows: [][]string{{"日本", "1", "x"}, {"ab", "1000", "longer"}, {"e\u0301", "2", "-"}}}
	got := strings.Join(table.lines(), "\n")
	want := "NAME     N  LAST\n日本     1  x\nab    1000  longer\ne\u0301        2  -"
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	table.maxWidth = 14
	for _, line := range table.lines() {
		if displayWidth(line) > 14 {
			t.Errorf("%q is %d wide", line, displayWidth(line))
		}
	}
	if got := table.lines()[2]; got != "ab    1000  l…" {
		t.Errorf("got %q", got)
	}
}

func TestCuttingNeverSplitsAWideCharacter(t *testing.T) {
	for columns, want := range map[int]string{0: "日本語", 6: "日本語", 5: "日本…", 4: "日…", 1: "…"} {
		if got := cutToWidth("日本語", columns); got != want {
			t.Errorf("%d columns: got %q, want %q", columns, got, want)
		}
	}
}

func TestHumanUnits(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", time.Microsecond: "<1ms", 15 * time.Millisecond: "15ms", 2100 * time.Millisecond: "2.1s", 59 * time.Second: "59s",
		200 * time.Second: "3m20s", 5 * time.Hour: "5h", 51 * time.Hour: "2d3h", -time.Second: "-1s",
	} {
		if got := humanDuration(d); got != want {
			t.Errorf("%v: got %s, want %s", d, got, want)
		}
	}
	for n, want := range map[uint64]string{0: "0B", 1023: "1023B", 65536: "64KiB", 1536 << 10: "1.5MiB", 1<<20 - 1: "1MiB", math.MaxUint64: "16EiB"} {
		if got := humanBytes(n); got != want {
			t.Errorf("%d: got %s, want %s", n, got, want)
		}
	}
	for r, want := range map[float64]string{0: "0", 0.01: "<0.1", 3.14: "3.1", 12345.6: "12346"} {
		if got := humanRate(r); got != want {
			t.Errorf("%v: got %s, want %s", r, got, want)
		}
	}
	for d, want := range map[time.Duration]string{0: "0s", 30 * time.Second: "30s", 10 * time.Millisecond: "0.01s", 36*time.Hour + time.Nanosecond: "129600.000000001s", -1500 * time.Millisecond: "-1.5s"} {
		if got := machineDuration(d); got != want {
			t.Errorf("%v: got %s, want %s", d, got, want)
		}
	}
}

func TestExitCodesFollowTheTable(t *testing.T) {
	for _, r := range reason.All() {
		err := error(&client.Error{Reason: string(r)})
		if got, want := exitCode(err), r.Lookup().Exit; got != want {
			t.Errorf("%s: exit %d, want %d", r, got, want)
		}
		if got, want := exitCode(errors.Join(errors.New("x"), err)), r.Lookup().Exit; got != want {
			t.Errorf("%s, wrapped: exit %d, want %d", r, got, want)
		}
	}
	if got := exitCode(&client.Error{Reason: "NEVER_HEARD_OF"}); got != exitInternal {
		t.Errorf("an unknown reason exits %d", got)
	}
	stale, denied := &client.Error{Reason: string(reason.StaleReceipt)}, &client.Error{Reason: string(reason.AccessDenied)}
	if got := exitCode(&client.SettleError{Failures: []*client.Error{stale, denied}, Total: 3}); got != 5 {
		t.Errorf("settlements of which one was denied exit %d, want 5", got)
	}
}

func TestCutBodiesEndWithWholeCharacters(t *testing.T) {
	for text, want := range map[string]string{"abc": "abc", "a日": "a日", "a日"[:3]: "a", "a日"[:2]: "a", "🎉"[:3]: "", "a\xff": "a\xff", "": ""} {
		if got := string(trimPartialRune([]byte(text))); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}
