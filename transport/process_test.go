package transport

import (
	"os"
	"testing"
)

func TestNamesOfProcessesAreEscaped(t *testing.T) {
	for in, want := range map[string]string{"plain": "plain", "two words": "two words", "\x1b[2J": `\x1b[2J`, "a\nb": `a\nb`, "\xff": `\xff`, `q"q`: `q"q`, "ä": "ä"} {
		if got := Printable(in); got != want {
			t.Errorf("%q is shown as %q, want %q", in, got, want)
		}
	}
	if got := CommandOf(0); got != "" {
		t.Errorf("nobody's command is %q", got)
	}
	if got := CommandOf(int32(os.Getpid())); got == "" {
		t.Error("this process has no name")
	}
}
