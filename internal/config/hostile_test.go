package config

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// fill repeats text up to the largest file that is read.
func fill(text string) string { return strings.Repeat(text, fileBytes/len(text)) }

func TestHostileFilesAreRefused(t *testing.T) {
	bomb := "a: &a [x, x, x, x, x, x, x, x]\n"
	for c := 'b'; c < 'n'; c++ {
		bomb += fmt.Sprintf("%c: &%c [%[3]s*%c]\n", c, c, strings.Repeat(fmt.Sprintf("*%c, ", c-1), 7), c-1)
	}
	for name, text := range map[string]string{
		"alias bomb": bomb, "brackets": fill("["), "braces": fill("{"), "open lists": fill("[a,"), "dashes": fill("- "), "dashes in lines": fill("-\n"), "question marks": fill("? "),
		"colons": fill("a: "), "quotes": fill("'"), "double quotes": fill("\""), "zeros": fill("\x00"), "tabs": "a:" + fill("\t") + "b", "one key": fill("a: b\n"), "flow keys": "{" + fill("a: b,") + "}",
		"entries": "[" + fill("a,") + "]", "anchors": fill("&a "), "tags": fill("! "), "documents": fill("---\na\n"), "mixed": fill("[{\"'"), "literals": fill("a: |\n x\n"),
		"a long word": fill("a"), "nested": nested(600), "keys": strings.Repeat("a: b\n", itemsMax),
	} {
		if len(text) > fileBytes {
			text = text[:fileBytes]
		}
		t.Run(name, func(t *testing.T) {
			_, err := loadText(t, text)
			var e *Error
			if !errors.As(err, &e) || len(e.Problems) > problemsMax+1 {
				t.Errorf("%.300v", err)
			}
		})
	}
}

// nested is maps in each other.
func nested(depth int) string {
	var b bytes.Buffer
	for i := range depth {
		fmt.Fprintf(&b, "%*sa:\n", i, "")
	}
	return b.String()
}

func TestCommentsAndBlankLinesMayFillAFile(t *testing.T) {
	for _, text := range []string{fill("\n"), fill("#\n"), fill(" \n"), "#" + fill("#")[1:]} {
		if _, err := loadText(t, text); err != nil {
			t.Error(err)
		}
	}
}

func TestListsAndMapsAreBoundedOverAllFiles(t *testing.T) {
	const parts = 4
	for key, entries := range map[string]struct{ begin, entry string }{
		"rules":     {"rules:", "- {queues: [a], anonymous: true, allow: [look]} # %d"},
		"tls.users": {"tls:\n  users:", "    a%d: alice"},
	} {
		var files []string
		for part := range parts {
			text := entries.begin + "\n"
			for i := range entriesMax / parts {
				text += fmt.Sprintf(entries.entry+"\n", part*entriesMax+i)
			}
			files = append(files, fmt.Sprintf("%d.yaml", part), text)
		}
		if _, err := loadText(t, "", files...); err != nil {
			t.Errorf("%s: so many may be: %.300v", key, err)
		}
		_, err := loadText(t, entries.begin+"\n"+fmt.Sprintf(entries.entry, 1<<30), files...)
		if say := key + ": 4097 entries in all files: there may be 4096"; err == nil || !strings.Contains(err.Error(), say) {
			t.Errorf("%s: said %.300v, want %q", key, err, say)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range []string{
		"", Sample(), "socket: /a\nstop_timeout: 10s\n", "a: &a [*a]\n", "queues:\n  /a: {mode: 0660, type_names: {a: 1}}\n", "rings: {/a: {capacity: 1MiB}}",
		"rules:\n- queues: [a]\n  users:\n  - alice\n  allow: [look]", "quotas: {default: {queues: unlimited}, users: {bob: {streams: 1}}}", "tls: {users: {'a': alice}}", "a: |\n b\n", "? a\n: b\n", "\"\\x00\": '", "a: >-\n",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) > 4096 {
			return
		}
		read := func(lenient bool) (Config, []Problem) {
			c := Default(0, env())
			l := newLoader(&c, people{}, lenient)
			l.file = "f"
			l.parse(text)
			l.finish()
			return c, l.problems
		}
		c, problems := read(false)
		lines := bytes.Count(text, []byte("\n")) + bytes.Count(text, []byte("\r")) + 1
		for _, p := range problems {
			if p.Message == "" || p.Line > lines || strings.ContainsAny(p.String(), "\x00\x1b") {
				t.Errorf("a problem that helps nobody: %q", p)
			}
		}
		if len(problems) > 0 {
			return
		}
		// What is fine once is fine again, and the same; and to a starting daemon too.
		if again, _ := read(false); !reflect.DeepEqual(again, c) {
			t.Errorf("read twice: %+v and %+v", c, again)
		}
		if started, problems := read(true); len(problems) > 0 || len(started.Warnings) > 0 || !reflect.DeepEqual(started.Access, c.Access) {
			t.Errorf("to a starting daemon: %v, %v", problems, started.Warnings)
		}
		for _, r := range c.Access.Rules {
			if len(r.Queues)+len(r.Rings) == 0 || r.Allow == 0 || len(r.Users)+len(r.Groups)+len(r.Certificates) == 0 && !r.Anonymous {
				t.Errorf("a rule that grants nothing: %+v", r)
			}
		}
		for name, id := range c.TLS.Users {
			if id.UID == 0 || !id.Mapped || id.Name != name {
				t.Errorf("%q acts as %+v", name, id)
			}
		}
		c.TLS = TLS{} // of which Check would read the files
		_ = c.Check()
	})
}
