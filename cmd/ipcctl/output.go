package main

import (
	"strings"

	"github.com/spf13/cobra"
)

// addOutput adds -o with the words that it takes; the first is the default.
func addOutput(cmd *cobra.Command, target *string, words ...string) {
	*target = words[0]
	cmd.Flags().VarP(&flagValue[string]{
		target: target,
		parse:  oneOf("output", words, words...),
		kind:   "FORMAT",
		text:   words[0],
	}, "output", "o", strings.Join(words, "|"))
	completeWords(cmd, "output", words)
}
