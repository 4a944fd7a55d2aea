package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ipcd/ipcd/client"
)

// completionTimeout is how long a shell that completes a word may be kept waiting for the daemon.
const completionTimeout = time.Second

func newCompletion(a *app) *cobra.Command {
	shells := []string{"bash", "zsh", "fish"}
	return &cobra.Command{
		Use:   "completion bash|zsh|fish",
		Short: "Write the shell's completion script",
		Long: `Write a script that lets the shell complete ipcctl's commands, flags and the names of queues.

  bash   source <(ipcctl completion bash)                          in ~/.bashrc
  zsh    ipcctl completion zsh > "${fpath[1]}/_ipcctl"             once
  fish   ipcctl completion fish > ~/.config/fish/completions/ipcctl.fish   once

That for bash needs the package bash-completion.`,
		Example: `  source <(ipcctl completion bash)`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 || !slices.Contains(shells, args[0]) {
				return usagef("name a shell: %s", strings.Join(shells, ", "))
			}
			return nil
		},
		ValidArgs: shells,
		RunE: a.short(func(_ context.Context, cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			var script strings.Builder
			var err error
			switch args[0] {
			case "bash":
				err = root.GenBashCompletionV2(&script, true)
			case "zsh":
				err = root.GenZshCompletion(&script)
			case "fish":
				err = root.GenFishCompletion(&script, true)
			}
			if err != nil {
				return fmt.Errorf("write the script: %w", err)
			}
			return a.print(script.String())
		}),
	}
}

type completer = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective)

// completeQueues completes up to so many names of queues.
func (a *app) completeQueues(atMost int) completer {
	return a.completeNames(atMost, func(ctx context.Context, c *client.Client, each func(name string)) {
		for q, err := range c.Queues(ctx, "") {
			if err != nil {
				return
			}
			each(q.Name)
		}
	})
}

// completeNames completes up to so many of the names that list tells, with the slash or without as the word begins.
func (a *app) completeNames(atMost int, list func(ctx context.Context, c *client.Client, each func(name string))) completer {
	return func(cmd *cobra.Command, args []string, begin string) ([]string, cobra.ShellCompDirective) {
		if len(args) >= atMost {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		c, err := a.dial()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
		defer cancel()
		var names []string
		list(ctx, c, func(name string) {
			if begin != "" && !strings.HasPrefix(begin, "/") {
				name = strings.TrimPrefix(name, "/")
			}
			if strings.HasPrefix(name, begin) && !slices.Contains(args, name) {
				names = append(names, name)
			}
		})
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeTypes completes --type with the names that the queue has for types.
func completeTypes(cmd *cobra.Command, a *app) {
	complete(cmd, "type", func(cmd *cobra.Command, args []string, begin string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		c, err := a.dial()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
		defer cancel()
		info, err := c.GetQueue(ctx, queueName(args[0]))
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		// Of "upto:a" or "created,fa" the last part is completed.
		at := strings.LastIndexAny(begin, ",:") + 1
		var names []string
		for name := range info.Settings.TypeNames {
			if strings.HasPrefix(name, begin[at:]) {
				names = append(names, begin[:at]+name)
			}
		}
		slices.Sort(names)
		return names, cobra.ShellCompDirectiveNoFileComp
	})
}

// completeWords completes a flag with fixed words.
func completeWords(cmd *cobra.Command, flag string, words []string) {
	complete(cmd, flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
}

// complete lets a flag be completed. The flag must exist: that it does not is a defect, not a condition.
func complete(cmd *cobra.Command, flag string, f completer) {
	if err := cmd.RegisterFlagCompletionFunc(flag, f); err != nil {
		panic(err)
	}
}
