// Package manpage writes what a manual page says of a program's commands and options, in the Markdown of go-md2man.
package manpage

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Command writes what c does, its options and its examples, and the same of the commands below it. Hidden ones are
// left out.
func Command(w io.Writer, c *cobra.Command) {
	if !c.IsAvailableCommand() {
		return
	}
	if c.Runnable() {
		flags := c.LocalNonPersistentFlags() // first: UseLine knows of the global ones only once they are merged in
		fmt.Fprintf(w, "## %s\n\n%s.\n\n", Text(c.UseLine()), Text(strings.TrimSuffix(c.Short, ".")))
		if c.Long != "" {
			fmt.Fprintf(w, "%s\n\n", prose(c.Long))
		}
		Options(w, flags)
		if c.Example != "" {
			fmt.Fprintf(w, "Examples:\n\n%s\n\n", verbatim(c.Example))
		}
	}
	for _, sub := range c.Commands() {
		Command(w, sub)
	}
}

// noDefaults are the defaults that say nothing, as in the help.
var noDefaults = []string{"", "0", "false", "[]"}

// Options writes a list of options. Hidden ones, and --help, are left out.
func Options(w io.Writer, flags *pflag.FlagSet) {
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		kind, usage := pflag.UnquoteUsage(f)
		name := "**--" + f.Name + "**"
		if f.Shorthand != "" {
			name = "**-" + f.Shorthand + "**, " + name
		}
		if kind != "" {
			name += " *" + Text(kind) + "*"
		}
		usage = strings.ReplaceAll(usage, "\n", " ")
		if !slices.Contains(noDefaults, f.DefValue) {
			usage += " (default " + f.DefValue + ")"
		}
		fmt.Fprintf(w, "%s\n: %s\n\n", name, Text(usage))
	})
}

// prose is text of a help. What is indented there keeps its lines.
func prose(text string) string {
	var parts []string
	for part := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		if strings.HasPrefix(part, " ") {
			parts = append(parts, verbatim(part))
		} else {
			parts = append(parts, Text(part))
		}
	}
	return strings.Join(parts, "\n\n")
}

// verbatim is text whose lines stay as they are.
func verbatim(text string) string {
	return "    " + strings.ReplaceAll(strings.Trim(text, "\n"), "\n", "\n    ")
}

var escapes = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `_`, `\_`, `<`, `\<`, `>`, `\>`, `[`, `\[`, `]`, `\]`, "`", "\\`", `#`, `\#`, `|`, `\|`)

// Text is text in which no character means anything in Markdown.
func Text(text string) string { return escapes.Replace(text) }
