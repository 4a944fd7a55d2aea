package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ipcd/ipcd/internal/config"
	"github.com/ipcd/ipcd/internal/units"
	"github.com/ipcd/ipcd/internal/version"
)

const long = `ipcd is the daemon through which the programs of a host exchange typed messages.

Started by root it listens at /run/ipcd/ipcd.sock and keeps its state in /var/lib/ipcd; started by
another user, at $XDG_RUNTIME_DIR/ipcd/ipcd.sock and in $XDG_STATE_HOME/ipcd (~/.local/state/ipcd).
Flags win over the configuration file. No file is read unless --config names one; SIGHUP, or ipcctl reload, reads it
again.

SIGTERM or SIGINT stops it: it delivers nothing more, waits for acks for a while, and exits.
A second signal stops it at once.

Exit codes: 0 it was stopped, 1 failure, 2 mistake on the command line or in the configuration, 65 the journal is
damaged, 74 the disk failed.`

const examples = `  ipcd                                             with the defaults
  ipcd --socket /tmp/demo/ipcd.sock --state-dir /tmp/demo/state
  ipcd --config /etc/ipcd/ipcd.yaml --log-level debug
  ipcd --config rules.yaml --listen 127.0.0.1:7475 --insecure
                                                   on TCP too, for every process of the host, as far as rules grant it`

const configHelp = "YAML `FILE`, with conf.d beside it; ipcd check --keys lists the keys"

// newCommand returns the command line: `ipcd` and its commands.
func newCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "ipcd",
		Short:         "message broker daemon",
		Long:          long,
		Example:       examples,
		Args:          noArguments,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w\nTry '%s --help'", err, c.CommandPath())}
	})
	addRun(root)

	start := &cobra.Command{Use: "run", Short: "run the daemon, as ipcd alone does", Long: long, Example: examples, Args: noArguments}
	addRun(start)
	root.AddCommand(start)

	root.AddCommand(newCheck())
	addOffline(root)
	root.AddCommand(&cobra.Command{
		Use:   "version",
		Short: "print the version",
		Args:  noArguments,
		Run:   func(c *cobra.Command, _ []string) { fmt.Fprintln(c.OutOrStdout(), "ipcd", version.String()) },
	})
	root.AddCommand(newMan())
	return root
}

func noArguments(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return usageError{fmt.Errorf("unknown command or argument %.80q\nTry '%s --help'", args[0], c.CommandPath())}
}

// addRun lets c run the daemon.
func addRun(c *cobra.Command) {
	flags := c.Flags()
	var given config.Config
	var file string
	flags.StringVar(&file, "config", "", configHelp)
	flags.StringVar(&given.Socket, "socket", "", "`PATH` of the unix socket")
	flags.StringVar(&given.AttachSocket, "attach-socket", "", "`PATH` of the socket at which programs attach to rings (default attach.sock beside the socket)")
	flags.StringVar(&given.Listen, "listen", "", "TCP `ADDRESS` to listen at too, as host:port: with tls in the configuration, or on loopback with --insecure")
	flags.BoolVar(&given.Insecure, "insecure", false, "serve TCP without TLS, to every process of the host: callers are anonymous, and may do what rules grant")
	flags.StringVar(&given.HTTP, "http", "", "`ADDRESS` of metrics, health and profiles: host:port, or unix:/path")
	flags.StringVar(&given.StateDir, "state-dir", "", "`DIRECTORY` of everything durable")
	flags.StringVar(&given.LogLevel, "log-level", "", "least `LEVEL` that is logged: "+strings.Join(config.LogLevels, ", ")+" (default info)")
	flags.StringVar(&given.OnDamage, "on-damage", "", "`WHAT` to do if the journal is damaged: refuse to start, or quarantine the queues concerned (default refuse)")
	flags.Var(sizeFlag{&given.MaxDisk}, "max-disk", "bytes that the journal may take, such as 20GiB; 0: no bound (default 0)")
	flags.Var(sizeFlag{&given.MaxMemory}, "max-memory", "bytes of memory that messages may take; 0: no bound (default 0)")
	flags.Var(sizeFlag{&given.KeepFree}, "keep-free", "bytes of the file system that the journal leaves free (default 256MiB)")
	flags.Var(sizeFlag{&given.RingMemory}, "ring-memory", "bytes of shared memory that all rings may take (default 1GiB)")
	flags.Var(sizeFlag{&given.RingMemoryPerUID}, "ring-memory-per-uid", "bytes of that memory which one user's programs may attach (default 512MiB)")
	c.RunE = func(*cobra.Command, []string) error {
		for _, name := range []string{"config", "socket", "attach-socket", "state-dir"} {
			if f := flags.Lookup(name); f.Changed && f.Value.String() == "" {
				return emptyPath(c, name)
			}
		}
		return run(func(w when) (config.Config, error) {
			cfg := config.Default(os.Geteuid(), os.Getenv)
			var problems error
			switch {
			case !flags.Changed("config"):
				if w == onReload {
					return cfg, errors.New("the daemon was started without --config: there is no file to read again")
				}
			case w == onReload:
				cfg, problems = config.Load(cfg, file)
			default:
				cfg, problems = config.LoadAtStart(cfg, file)
			}
			for flag, take := range map[string]func(){
				"socket":    func() { cfg.Socket = given.Socket },
				"listen":    func() { cfg.Listen = given.Listen },
				"insecure":  func() { cfg.Insecure = given.Insecure },
				"http":      func() { cfg.HTTP = given.HTTP },
				"state-dir": func() { cfg.StateDir = given.StateDir },
				"log-level": func() { cfg.LogLevel = given.LogLevel },

				"on-damage":  func() { cfg.OnDamage = given.OnDamage },
				"max-disk":   func() { cfg.MaxDisk = given.MaxDisk },
				"max-memory": func() { cfg.MaxMemory = given.MaxMemory },
				"keep-free":  func() { cfg.KeepFree = given.KeepFree },

				"attach-socket":       func() { cfg.AttachSocket = given.AttachSocket },
				"ring-memory":         func() { cfg.RingMemory = given.RingMemory },
				"ring-memory-per-uid": func() { cfg.RingMemoryPerUID = given.RingMemoryPerUID },
			} {
				if flags.Changed(flag) {
					take()
				}
			}
			return cfg, config.Join(problems, cfg.Check())
		})
	}
}

// emptyPath is the mistake of a flag that names no path.
func emptyPath(c *cobra.Command, flag string) error {
	return usageError{fmt.Errorf("--%s is empty: name a path, or leave the flag out\nTry '%s --help'", flag, c.CommandPath())}
}

// sizeFlag is a number of bytes on the command line.
type sizeFlag struct{ bytes *int64 }

// Set reads the flag's value.
func (f sizeFlag) Set(s string) (err error) {
	*f.bytes, err = units.ParseSize(s)
	return err
}

// String writes nothing: the defaults stand in the help.
func (f sizeFlag) String() string { return "" }

// Type is what the help calls it.
func (f sizeFlag) Type() string { return "SIZE" }
