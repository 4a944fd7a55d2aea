package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ipcd/ipcd/internal/manpage"
)

// newMan returns the hidden command that writes what ipcd(8) says of the commands. The rest of the page is
// docs/man/ipcd.8.md.
func newMan() *cobra.Command {
	return &cobra.Command{
		Use:    "man",
		Short:  "Write the options and commands of the manual page, in Markdown",
		Hidden: true,
		Args:   noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			var page strings.Builder
			manual(&page, c.Root())
			_, err := io.WriteString(c.OutOrStdout(), page.String())
			return err
		},
	}
}

// manual writes the options of the daemon, and then each command.
func manual(w io.Writer, root *cobra.Command) {
	fmt.Fprint(w, "# OPTIONS\n\n")
	manpage.Options(w, root.Flags())
	fmt.Fprint(w, "# COMMANDS\n\n")
	for _, c := range root.Commands() {
		if c.Name() == "run" { // its options are those above
			fmt.Fprintf(w, "## %s\n\n%s.\n\n", manpage.Text(c.UseLine()), manpage.Text(c.Short))
			continue
		}
		manpage.Command(w, c)
	}
}
