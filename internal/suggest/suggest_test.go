package suggest

import (
	"strings"
	"testing"
)

func TestNearestWordIsFound(t *testing.T) {
	words := []string{"create", "update", "rm", "recv", "release", "resume"}
	for word, want := range map[string]string{
		"craete": "create", "updat": "update", "udpate": "update", "rel": "release", "re": "recv", "reciv": "recv", "recvv": "recv",
		"r": "", "x": "", "": "", "rx": "rm", "xy": "", "delete": "", "Create": "create", "create": "create",
		"an\x00other": "", strings.Repeat("create", 1000): "",
	} {
		if got := Nearest(word, words); got != want {
			t.Errorf("%q: %q, want %q", word, got, want)
		}
	}
	if got := Nearest("recv", nil); got != "" {
		t.Errorf("of no words: %q", got)
	}
}

func TestFewestSlipsWin(t *testing.T) {
	if got := Nearest("leese", []string{"lens", "lease", "less"}); got != "lease" {
		t.Errorf("%q", got)
	}
}

func TestDistanceCountsLetters(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"abc", "abc", 0}, {"abc", "abd", 1}, {"abc", "xabc", 1}, {"kitten", "sitting", 3}, {"ab", "ba", 2}} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("%q to %q: %d, want %d", c.a, c.b, got, c.want)
		}
	}
}
