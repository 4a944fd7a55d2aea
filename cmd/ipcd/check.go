package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ipcd/ipcd/internal/config"
)

func newCheck() *cobra.Command {
	var file string
	var keys bool
	c := &cobra.Command{
		Use:   "check",
		Short: "check the configuration",
		Long: `Read the configuration as the daemon would, the files of conf.d included, and say what is wrong with it: the file,
the line, the key, and what is allowed. Nothing is changed, and a daemon that runs is not disturbed.

Users and groups are looked up, and the files of TLS are read: it may need the rights of root, or of the daemon's
user, to do that.

Exit codes: 0 all is well, 2 there are mistakes, or a file can not be read.`,
		Example: `  ipcd check
  ipcd check --config /etc/ipcd/ipcd.yaml && ipcctl reload
  ipcd check --keys | less                         every key, with its default and meaning`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			if keys {
				_, err := io.WriteString(c.OutOrStdout(), config.Reference())
				return err
			}
			if file == "" {
				return emptyPath(c, "config")
			}
			return check(c, file)
		},
	}
	c.Flags().StringVar(&file, "config", config.SystemFile, "the `FILE` to check, with conf.d beside it")
	c.Flags().BoolVar(&keys, "keys", false, "print every key with its default and meaning, and check nothing")
	return c
}

// check reads the configuration in file. Where the daemon's own places are is not its business, so the defaults are
// those of a host's daemon, whoever asks.
func check(c *cobra.Command, file string) error {
	cfg, err := config.Load(config.Default(0, os.Getenv), file)
	err = config.Join(err, cfg.Check())
	cfg.Warnings = append(cfg.Warnings, closedToTheDaemon(&cfg)...)
	for _, w := range cfg.Warnings {
		fmt.Fprintln(c.ErrOrStderr(), "warning:", escapeLine(w))
	}
	var wrong *config.Error
	if errors.As(err, &wrong) {
		for line := range strings.Lines(wrong.Error()) {
			fmt.Fprintln(c.ErrOrStderr(), escapeLine(strings.TrimSuffix(line, "\n")))
		}
		return usageError{fmt.Errorf("%s: %s", escapeLine(file), plural(int64(len(wrong.Problems)), "mistake"))}
	}
	if err != nil {
		return usageError{err}
	}
	_, err = fmt.Fprintf(c.OutOrStdout(), "%s: ok (%s, %s, %s, %s)\n", escapeLine(file), plural(int64(len(cfg.Files)), "file"),
		plural(int64(len(cfg.Queues)), "queue"), plural(int64(len(cfg.Rings)), "ring"), plural(int64(len(cfg.Access.Rules)), "rule"))
	return err
}
