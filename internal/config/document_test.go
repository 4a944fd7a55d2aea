package config

import (
	"flag"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the files that are made of the table of keys")

// The files that are made of the table.
const (
	sampleFile = "../../deploy/ipcd.yaml"
	manualFile = "../../docs/man/ipcd.yaml.5.md"
)

// The part of the manual that is made of the table.
const (
	manualBegin = "# KEYS\n\n"
	manualEnd   = "# "
)

// current compares a file with what it is to be.
func current(t *testing.T, name, have, want string) {
	t.Helper()
	if have == want {
		return
	}
	if !*update {
		t.Errorf("%s is not what the table of keys says: run `go test ./internal/config -update`", name)
		return
	}
	if err := os.WriteFile(name, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestShippedFileIsMadeOfTheTable(t *testing.T) {
	text, err := os.ReadFile(sampleFile)
	if err != nil && !*update {
		t.Fatal(err)
	}
	current(t, sampleFile, string(text), Sample())
}

func TestManualIsMadeOfTheTable(t *testing.T) {
	text, err := os.ReadFile(manualFile)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(text), manualBegin)
	if !found {
		t.Fatalf("%s has no %q", manualFile, manualBegin)
	}
	after := rest[strings.Index("\n"+rest, "\n"+manualEnd):]
	current(t, manualFile, string(text), before+manualBegin+Manual()+after)
}

// uncommented is the shipped file with all of its keys in force.
func uncommented(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	key := regexp.MustCompile(`^#( {2}|[a-z])`)
	for line := range strings.Lines(Sample()) {
		if key.MatchString(line) {
			line = line[1:]
		}
		b.WriteString(line)
	}
	return b.String()
}

func TestShippedFileSaysNothing(t *testing.T) {
	if c := loaded(t, Sample()); !reflect.DeepEqual(plain(c), plain(Default(0, env()))) {
		t.Errorf("%+v", plain(c))
	}
}

func TestShippedFileNamesEveryKey(t *testing.T) {
	text := uncommented(t)
	c := loaded(t, text)
	for _, k := range AllKeys() {
		if !regexp.MustCompile(`(?m)^ *` + regexp.QuoteMeta(k.Name) + `:`).MatchString(text) {
			t.Errorf("%s is missing", k.Path)
		}
		if k.Meaning == "" || !strings.HasSuffix(k.Meaning, ".") {
			t.Errorf("%s means %q", k.Path, k.Meaning)
		}
	}
	if len(c.Queues) != 1 || len(c.Rings) != 1 || len(c.Access.Rules) != 1 || len(c.Quotas.Of) != 3 {
		t.Errorf("%+v", c)
	}
	// What no key of the table reaches would still be nil.
	for _, d := range []any{c.Queues[0], c.Rings[0], c.Queues[0].Kernel} {
		v := reflect.ValueOf(d)
		for i := range v.NumField() {
			if v.Field(i).IsZero() {
				t.Errorf("%T has no key for %s", d, v.Type().Field(i).Name)
			}
		}
	}
}

func TestDefaultsOfTheTableAreThoseInForce(t *testing.T) {
	want := plain(Default(0, env()))
	for i := range Keys {
		k := &Keys[i]
		if k.Kind == Map {
			continue
		}
		if zero := reflect.ValueOf(want[k.Name]).IsZero(); k.Default == "" {
			if !zero {
				t.Errorf("%s has the default %v, and the table says none", k.Name, want[k.Name])
			}
			continue
		}
		c := loaded(t, k.Name+": "+k.Default)
		if got := plain(c)[k.Name]; !reflect.DeepEqual(got, want[k.Name]) {
			t.Errorf("%s: the table says %s, in force is %v", k.Name, k.Default, want[k.Name])
		}
	}
}

func TestListOfKeysTellsEach(t *testing.T) {
	text := Reference()
	for _, say := range []string{"queues./NAME.lease (duration, 10ms to 168h; default 30s)", "rules[].allow (list of words, look, send, receive or manage)",
		"tls.users (user for each CERTIFICATE)", "max_memory (size, 0, or at least 64MiB; default 0)", "quotas.default.queues (number or unlimited, 0 or more, or unlimited; default 1024)"} {
		if !strings.Contains(text, say+"\n") {
			t.Errorf("%q is missing", say)
		}
	}
}
