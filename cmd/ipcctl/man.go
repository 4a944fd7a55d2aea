package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// newMan returns the hidden command that writes what ipcctl(1) says of the commands. The rest of the page is
// docs/man/ipcctl.1.md.
func newMan(a *app) *cobra.Command {
	return &cobra.Command{
		Use:    "man",
		Short:  "Write the commands' part of the manual page, in Markdown",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var page strings.Builder
			manual(&page, cmd.Root())
			return a.print(page.String())
		},
	}
}

// manual writes the global options of root, and of each command what it does, its options and its examples.
func manual(w io.Writer, root *cobra.Command) {
	fmt.Fprint(w, "# OPTIONS\n\nOf all commands:\n\n")
	manualFlags(w, root.PersistentFlags())
	fmt.Fprint(w, "# COMMANDS\n\n")
	for _, group := range root.Groups() {
		for _, c := range root.Commands() {
			if c.GroupID == group.ID {
				manualCommand(w, c)
			}
		}
	}
}

func manualCommand(w io.Writer, c *cobra.Command) {
	if !c.IsAvailableCommand() {
		return
	}
	if c.Runnable() {
		flags := c.LocalNonPersistentFlags() // first: UseLine knows of the global ones only once they are merged in
		fmt.Fprintf(w, "## %s\n\n%s.\n\n", manualText(c.UseLine()), manualText(strings.TrimSuffix(c.Short, ".")))
		if c.Long != "" {
			fmt.Fprintf(w, "%s\n\n", manualProse(c.Long))
		}
		manualFlags(w, flags)
		if c.Example != "" {
			fmt.Fprintf(w, "Examples:\n\n%s\n\n", manualVerbatim(c.Example))
		}
	}
	for _, sub := range c.Commands() {
		manualCommand(w, sub)
	}
}

// manualFlags writes a list of options.
func manualFlags(w io.Writer, flags *pflag.FlagSet) {
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
			name += " *" + manualText(kind) + "*"
		}
		fmt.Fprintf(w, "%s\n: %s\n\n", name, manualText(strings.ReplaceAll(usage, "\n", " ")))
	})
}

// manualProse is text of a help. What is indented there keeps its lines.
func manualProse(text string) string {
	var parts []string
	for part := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		if strings.HasPrefix(part, " ") {
			parts = append(parts, manualVerbatim(part))
		} else {
			parts = append(parts, manualText(part))
		}
	}
	return strings.Join(parts, "\n\n")
}

// manualVerbatim is text whose lines stay as they are.
func manualVerbatim(text string) string {
	return "    " + strings.ReplaceAll(strings.Trim(text, "\n"), "\n", "\n    ")
}

var manualEscapes = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `_`, `\_`, `<`, `\<`, `>`, `\>`, `[`, `\[`, `]`, `\]`, "`", "\\`", `#`, `\#`, `|`, `\|`)

// manualText is text in which no character means anything in Markdown.
func manualText(text string) string { return manualEscapes.Replace(text) }
