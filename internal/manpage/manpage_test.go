package manpage

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func TestTextMeansNothingInMarkdown(t *testing.T) {
	if got, want := Text("a*b_c <d> [e] `f` #g |h| \\"), "a\\*b\\_c \\<d\\> \\[e\\] \\`f\\` \\#g \\|h\\| \\\\"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got, want := prose("one\ntwo_\n\n  kept  as_is\n    more\n\nthree"), "one\ntwo\\_\n\n      kept  as_is\n        more\n\nthree"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestCommandIsWrittenWithThoseBelowIt(t *testing.T) {
	nothing := func(*cobra.Command, []string) {}
	root := &cobra.Command{Use: "tool"}
	root.PersistentFlags().Bool("everywhere", false, "of all commands")
	group := &cobra.Command{Use: "box", Short: "Boxes"} // it does nothing itself
	open := &cobra.Command{Use: "open BOX", Short: "Open a box.", Long: "It *opens* a box.", Example: "  tool box open a_b", Run: nothing}
	open.Flags().StringP("key", "k", "", "the `KEY` of\nthe box")
	open.Flags().String("with", "both hands", "what to use")
	open.Flags().Bool("force", false, "with a hammer")
	if err := open.Flags().MarkHidden("force"); err != nil {
		t.Fatal(err)
	}
	group.AddCommand(open, &cobra.Command{Use: "secret", Short: "Hide a box", Hidden: true, Run: nothing})
	root.AddCommand(group)

	var page strings.Builder
	Command(&page, group)
	want := `## tool box open BOX [flags]

Open a box.

It \*opens\* a box.

**-k**, **--key** *KEY*
: the KEY of the box

**--with** *string*
: what to use (default both hands)

Examples:

      tool box open a_b

`
	if got := page.String(); got != strings.Replace(want, "[flags]", `\[flags\]`, 1) {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}
