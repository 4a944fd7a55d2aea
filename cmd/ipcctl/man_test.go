package main

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func TestManualHasEveryCommandAndOption(t *testing.T) {
	root := newRoot(&app{})
	var page strings.Builder
	manual(&page, root)
	text := page.String()
	var look func(*cobra.Command)
	look = func(c *cobra.Command) {
		if c.Hidden {
			if strings.Contains(text, "## "+c.CommandPath()) {
				t.Errorf("the hidden command %q is in the manual", c.CommandPath())
			}
			return
		}
		if c.Runnable() && c != root && !strings.Contains(text, "## "+manualText(c.UseLine())+"\n") {
			t.Errorf("%q is not in the manual", c.UseLine())
		}
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if !f.Hidden && f.Name != "help" && !strings.Contains(text, "**--"+f.Name+"**") {
				t.Errorf("--%s of %q is not in the manual", f.Name, c.CommandPath())
			}
		})
		for _, sub := range c.Commands() {
			look(sub)
		}
	}
	look(root)
}

func TestManualTextMeansNothingInMarkdown(t *testing.T) {
	if got, want := manualText("a*b_c <d> [e] `f` #g |h| \\"), "a\\*b\\_c \\<d\\> \\[e\\] \\`f\\` \\#g \\|h\\| \\\\"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got, want := manualProse("one\ntwo_\n\n  kept  as_is\n    more\n\nthree"), "one\ntwo\\_\n\n      kept  as_is\n        more\n\nthree"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
