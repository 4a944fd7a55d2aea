package main

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ipcd/ipcd/internal/manpage"
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
		if c.Runnable() && c != root && !strings.Contains(text, "## "+manpage.Text(c.UseLine())+"\n") {
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
