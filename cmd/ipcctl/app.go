package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/ipcd/ipcd/client"
	"github.com/ipcd/ipcd/internal/schema"
	"github.com/ipcd/ipcd/internal/suggest"
)

// defaultTimeout is how long a command may take unless --timeout says otherwise. Commands that wait or
// work for as long as it takes have no such default.
const defaultTimeout = 30 * time.Second

// streams is how a command meets its caller.
type streams struct {
	in                  io.Reader
	out, err            io.Writer
	inTTY, outTTY, eTTY bool
	color               bool
	size                func() (columns, rows int) // of the terminal at out; 0: unknown
}

// processStreams returns those of this process.
func processStreams() streams {
	s := streams{in: os.Stdin, out: os.Stdout, err: os.Stderr}
	s.inTTY = term.IsTerminal(int(os.Stdin.Fd()))
	s.outTTY = term.IsTerminal(int(os.Stdout.Fd()))
	s.eTTY = term.IsTerminal(int(os.Stderr.Fd()))
	s.color = s.outTTY && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	s.size = func() (int, int) {
		if !s.outTTY {
			return 0, 0
		}
		columns, rows, err := term.GetSize(int(os.Stdout.Fd()))
		if err != nil {
			return 0, 0
		}
		return columns, rows
	}
	return s
}

// app is one run of ipcctl.
type app struct {
	streams
	address  string
	insecure bool
	tls      client.TLS
	timeout  time.Duration
	client   *client.Client
	schemas  map[string]*schema.Decoder // by queue, of those whose messages are shown
}

// run runs one command line and returns the exit code.
func run(ctx context.Context, args []string, s streams) (exit int) {
	a := &app{streams: s}
	defer func() {
		if p := recover(); p != nil {
			fmt.Fprintf(s.err, "ipcctl: internal error: %s\n%s", escapeLine(fmt.Sprint(p)), debug.Stack())
			exit = exitInternal
		}
	}()
	defer func() {
		if a.client != nil {
			_ = a.client.Close()
		}
	}()
	root := newRoot(a)
	root.SetArgs(args)
	root.SetIn(s.in)
	root.SetOut(s.out)
	root.SetErr(s.err)
	cmd, err := root.ExecuteContextC(ctx)
	return a.finish(cmd, err)
}

func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "ipcctl",
		Short: "Look into ipcd's queues and rings and work with them",
		Long: `ipcctl lists, makes and changes the queues and rings of an ipcd, sends, receives and settles messages,
and looks at them without disturbing anything. Names may be given with or without their leading slash.

Data goes to stdout, words to stderr. Exit codes: 0 ok, 1 failure, 2 usage, 3 not found, 4 unreachable
or unhealthy, 5 denied, 6 timed out or empty, 70 internal error; of several objects, the highest. ipcctl check exits
as monitoring systems expect it.`,
		Example: `  ipcctl create /jobs --type-name created=7
  ipcctl send /jobs --type created 'hello'
  ipcctl ls
  ipcctl peek /jobs
  ipcctl recv /jobs --type created --ack`,
		SilenceUsage:       true,
		SilenceErrors:      true,
		DisableSuggestions: true,
		CompletionOptions:  cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.SetFlagErrorFunc(flagError)
	flags := root.PersistentFlags()
	addText(flags, &a.address, "address", "a", "SOCKET", "the daemon's SOCKET or host:port (default: IPCD_ADDRESS, else the local daemon's socket)")
	flags.BoolVar(&a.insecure, "insecure", false, "plaintext TCP instead of TLS, to loopback addresses only")
	addText(flags, &a.tls.CertFile, "tls-cert", "", "FILE", "for TCP: your certificate, a PEM FILE (default: IPCD_TLS_CERT)")
	addText(flags, &a.tls.KeyFile, "tls-key", "", "FILE", "its private key, a PEM FILE (default: IPCD_TLS_KEY)")
	addText(flags, &a.tls.CAFile, "tls-ca", "", "FILE", "the authority that signed the daemon's certificate, a PEM FILE (default: IPCD_TLS_CA, else those this host trusts)")
	addText(flags, &a.tls.ServerName, "tls-server-name", "", "NAME", "the NAME in the daemon's certificate (default: IPCD_TLS_SERVER_NAME, else the host in --address)")
	addFlag(flags, &a.timeout, "timeout", "DURATION", "give up after this long; 0: never (default 30s; never where a command waits or works on)", parseDuration)
	cobra.EnableCommandSorting = false
	addGroup(root, "queues", "Queues:",
		newLs(a), newStat(a), newCreate(a), newUpdate(a), newChown(a, a.ownedQueues()), newChmod(a, a.ownedQueues()), newPause(a), newResume(a), newPurge(a), newKick(a), newMove(a), newRedrive(a), newBind(a), newUnbind(a), newBinds(a), newExport(a), newImport(a), newRm(a))
	addGroup(root, "messages", "Messages:",
		newSend(a), newRecv(a), newPeek(a), newTap(a), newRequest(a), newWork(a),
		newSettle(a, client.OutcomeAck), newSettle(a, client.OutcomeNack), newSettle(a, client.OutcomeTouch),
		newSettle(a, client.OutcomeRelease), newSettle(a, client.OutcomeBury))
	addGroup(root, "schemas", "Schemas:", newSchema(a))
	addGroup(root, "rings", "Rings:", newRing(a))
	addGroup(root, "about", "The daemon, and ipcctl itself:",
		newInfo(a), newClients(a), newQuota(a), newCheck(a), newMetrics(a), newReload(a), newBackup(a), newVersion(a), newCompletion(a))
	root.AddCommand(newMan(a))
	root.SetHelpCommandGroupID("about")
	return root
}

// addGroup adds commands under a heading of the help.
func addGroup(root *cobra.Command, id, title string, commands ...*cobra.Command) {
	root.AddGroup(&cobra.Group{ID: id, Title: title})
	for _, c := range commands {
		c.GroupID = id
	}
	root.AddCommand(commands...)
}

// call is what a command does, once its words are understood.
type call func(ctx context.Context, cmd *cobra.Command, args []string) error

// short runs a command that the daemon answers at once: if there is no answer within defaultTimeout, there is no daemon.
func (a *app) short(f call) func(*cobra.Command, []string) error {
	return a.run(func(ctx context.Context, cmd *cobra.Command, args []string) error {
		limit := defaultTimeout
		if cmd.Flags().Changed("timeout") {
			limit = a.timeout
		}
		return a.answered(f(ctx, cmd, args), limit)
	}, defaultTimeout)
}

// bounded runs a command that may have to wait, for room in a queue say, but no longer than defaultTimeout.
func (a *app) bounded(f call) func(*cobra.Command, []string) error { return a.run(f, defaultTimeout) }

// long runs a command that may take as long as it needs.
func (a *app) long(f call) func(*cobra.Command, []string) error { return a.run(f, 0) }

func (a *app) run(f call, timeout time.Duration) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		if cmd.Flags().Changed("timeout") {
			timeout = a.timeout
		}
		if timeout > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, timeout)
			defer cancel()
		}
		if err := f(ctx, cmd, args); err != nil {
			return &failure{err: err, timeout: timeout}
		}
		return nil
	}
}

// dial returns the client, which connects with its first call.
func (a *app) dial() (*client.Client, error) {
	if a.client != nil {
		return a.client, nil
	}
	options := []client.Option{client.WithUserAgent("ipcctl")}
	if a.insecure {
		options = append(options, client.WithInsecure())
	}
	if a.tls != (client.TLS{}) { // otherwise the client looks into the environment
		options = append(options, client.WithTLS(a.tlsFiles()))
	}
	c, err := client.Dial(a.address, options...)
	if err != nil {
		if !a.insecure && a.tlsFiles() == (client.TLS{}) && strings.Contains(err.Error(), "TCP needs TLS") {
			err = fmt.Errorf("%w; here: --tls-cert, --tls-key and --tls-ca, or --insecure", err)
		}
		return nil, err
	}
	a.client = c
	return c, nil
}

// tlsFiles returns what the flags say; what they do not, the environment may.
func (a *app) tlsFiles() client.TLS {
	from := client.TLSFromEnvironment()
	return client.TLS{
		CertFile:   cmp.Or(a.tls.CertFile, from.CertFile),
		KeyFile:    cmp.Or(a.tls.KeyFile, from.KeyFile),
		CAFile:     cmp.Or(a.tls.CAFile, from.CAFile),
		ServerName: cmp.Or(a.tls.ServerName, from.ServerName),
	}
}

// say writes words for people to stderr.
func (a *app) say(format string, args ...any) { fmt.Fprintf(a.err, format+"\n", args...) }

// print writes data to stdout in one piece.
func (a *app) print(text string) error {
	_, err := io.WriteString(a.out, text)
	return outputError(err)
}

// each does something with each of several objects. It goes on after a failure, says what failed, and
// returns the worst.
func (a *app) each(ctx context.Context, names []string, do func(name string) error) error {
	if len(names) == 1 {
		return do(names[0])
	}
	worst := 0
	for _, name := range names {
		if err := do(name); err != nil {
			if ctx.Err() != nil || isBrokenPipe(err) {
				return err
			}
			a.report(err, 0)
			worst = max(worst, exitCode(err))
		}
	}
	if worst > 0 {
		return reported(worst)
	}
	return nil
}

var unknownCommand = regexp.MustCompile(`^unknown command ("(?:[^"\\]|\\.)*") for`)

// finish says what went wrong, if anything, and returns the exit code.
func (a *app) finish(cmd *cobra.Command, err error) int {
	var fail *failure
	switch {
	case err == nil, isBrokenPipe(err):
		return 0
	case errors.As(err, &fail):
		a.report(fail.err, fail.timeout)
		return exitCode(fail.err)
	}
	// cobra or a command's own look at its arguments
	if m := unknownCommand.FindStringSubmatch(err.Error()); m != nil {
		word, unquoteErr := strconv.Unquote(m[1])
		if unquoteErr == nil {
			var names []string
			for _, c := range cmd.Commands() {
				names = append(names, c.Name())
			}
			err = usagef("unknown command %s%s; see ipcctl --help", quoteArg(word), didYouMean(word, names))
		}
	}
	if cmd.Name() == checkName {
		return a.misused(err)
	}
	a.say("ipcctl: %s", escapeLine(err.Error()))
	return exitUsage
}

// flagError says which flag was not understood and why, or which may have been meant.
func flagError(cmd *cobra.Command, err error) error {
	var invalid *pflag.InvalidValueError
	if errors.As(err, &invalid) {
		return usagef("--%s: %v; see %s --help", invalid.GetFlag().Name, invalid.Unwrap(), cmd.CommandPath())
	}
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) {
		return usagef("%v; see %s --help", err, cmd.CommandPath())
	}
	name := unknown.GetSpecifiedName()
	if unknown.GetSpecifiedShortnames() != "" && cmd.Name() == "chmod" {
		return usagef("a mode that begins with - goes behind --, as in: %s -- -r NAME; or write a-r; see %[1]s --help", cmd.CommandPath())
	}
	if unknown.GetSpecifiedShortnames() != "" {
		return usagef("unknown flag %s; see %s --help", quoteArg("-"+name), cmd.CommandPath())
	}
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	hint := ""
	if w := suggest.Nearest(name, names); w != "" {
		hint = "; did you mean --" + w + "?"
	}
	return usagef("unknown flag %s%s; see %s --help", quoteArg("--"+name), hint, cmd.CommandPath())
}
