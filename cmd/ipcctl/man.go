package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ipcd/ipcd/internal/manpage"
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

// manual writes the global options of root, and then each command.
func manual(w io.Writer, root *cobra.Command) {
	fmt.Fprint(w, "# OPTIONS\n\nOf all commands:\n\n")
	manpage.Options(w, root.PersistentFlags())
	fmt.Fprint(w, "# COMMANDS\n\n")
	for _, group := range root.Groups() {
		for _, c := range root.Commands() {
			if c.GroupID == group.ID {
				manpage.Command(w, c)
			}
		}
	}
}
