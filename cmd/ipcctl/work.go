package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/ipcd/ipcd/client"
	"github.com/ipcd/ipcd/internal/limits"
)

type workOptions struct {
	selector  string
	jobs      int
	number    int64
	once      bool
	reply     bool
	nackDelay time.Duration
	timeout   time.Duration // of one command; 0: none
	lease     time.Duration
	quiet     bool
}

// jobsMax bounds the commands that run at the same time.
const jobsMax = 1024

func newWork(a *app) *cobra.Command {
	o := workOptions{jobs: 1, nackDelay: client.Backoff}
	cmd := &cobra.Command{
		Use:   "work QUEUE... -- COMMAND [ARG...]",
		Short: "Run a command for each message: exit 0 acks it, anything else nacks it",
		Long: `Run COMMAND for each message of the queues, which are served in turn. The body is its standard input; exit 0
acks the message, any other end nacks it, with the exit code and the last line of the command's standard error as
the reason. Leases are prolonged while commands run.

The first SIGINT or SIGTERM ends it in good order: nothing more is received, what runs is finished. The second
kills the commands and gives their messages back. Messages are also given back, uncounted, and work ends with exit 1,
where COMMAND cannot be started at all. Should the lease be lost, because the daemon went away, the command is killed.

With --reply, what COMMAND writes to its standard output is sent to the queue that the message names for replies, with
its correlation id. That nobody waits for it any more, since a temporary queue has ended with its session, is told on
stderr, and the message is acked; any other queue that is not there nacks it.

The command's environment says the rest:

  IPCD_QUEUE           the queue
  IPCD_SEQUENCE        the message's sequence
  IPCD_TYPE            its type, a number
  IPCD_TYPE_NAME       the queue's name for the type, if it has one
  IPCD_PRIORITY        its priority
  IPCD_ATTEMPTS        how many earlier attempts failed
  IPCD_SEND_TIME       when it was sent, RFC 3339
  IPCD_CORRELATION_ID, IPCD_REPLY_TO, IPCD_DEDUP_ID, IPCD_CONTENT_TYPE   where they are set
  IPCD_HEADER_NAME     each header, its name in capitals, with _ for all but letters and digits
  IPCD_RECEIPT         what ipcctl ack, nack, touch, release and bury take

Values with a NUL byte, which no environment can hold, are left out.`,
		Example: `  ipcctl work /jobs -- ./handle-job
  ipcctl work /jobs --type created -j 4 --timeout 1m -- sh -c 'jq -r .id | xargs ./create'
  ipcctl work /high /low --nack-delay 30s -- ./deliver
  ipcctl work /sums --reply -- bc
  ipcctl work /jobs --once -- cat`,
		Args: func(cmd *cobra.Command, args []string) error {
			dash := cmd.ArgsLenAtDash()
			switch {
			case dash < 0:
				return usagef("put the command behind --, as in: ipcctl work /jobs -- ./handle-job; see ipcctl work --help")
			case dash == 0:
				return usagef("name a queue before the --, as in: ipcctl work /jobs -- ./handle-job; see ipcctl work --help")
			case dash == len(args):
				return usagef("give a command behind the --, as in: ipcctl work /jobs -- ./handle-job; see ipcctl work --help")
			}
			return nil
		},
		RunE: a.long(func(ctx context.Context, cmd *cobra.Command, args []string) error {
			if o.once {
				if cmd.Flags().Changed("number") {
					return usagef("--once and --number exclude each other: --once is -n 1")
				}
				o.number = 1
			}
			dash := cmd.ArgsLenAtDash()
			return a.work(ctx, args[:dash], args[dash:], &o)
		}),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, begin string) ([]string, cobra.ShellCompDirective) {
			if cmd.ArgsLenAtDash() >= 0 { // the command's own words
				return nil, cobra.ShellCompDirectiveDefault
			}
			return a.completeQueues(anyNumber)(cmd, args, begin)
		},
	}
	f := cmd.Flags()
	addSelector(cmd, a, &o.selector, "only the types in SEL: 7, upto:7, not:7, 1,2,3 or names")
	f.VarP(&flagValue[int]{target: &o.jobs, parse: parseNumber(1, jobsMax), kind: "N"}, "jobs", "j", "run up to so many commands at the same time (default 1)")
	f.VarP(&flagValue[int64]{target: &o.number, parse: positive[int64](parseCount), kind: "N"}, "number", "n",
		"end after so many messages; exit 1 if not all were acked (default: go on)")
	f.BoolVar(&o.once, "once", false, "end after one message, as -n 1")
	f.BoolVar(&o.reply, "reply", false, "send what the command writes to the queue that the message names for replies")
	addFlag(f, &o.nackDelay, "nack-delay", "DURATION", "a failed message comes again after this long (default: the queue's back-off; where it has none, 1s, doubled each time up to 1m)", parseDuration)
	addFlag(f, &o.timeout, "timeout", "DURATION", "kill a command that takes longer, which nacks its message (default: never)", positiveDuration)
	addFlag(f, &o.lease, "lease", "DURATION", "how long a lease lasts, until it is prolonged (default: as the queue says)", positiveDuration)
	f.BoolVarP(&o.quiet, "quiet", "q", false, "do not tell of each failure")
	return cmd
}

// worker is one work at work.
type worker struct {
	a       *app
	client  *client.Client
	options *workOptions
	argv    []string
	path    string                      // of the command
	names   map[string]map[int64]string // of types, by queue
	eager   map[string]bool             // queues without a back-off
	environ []string                    // what of our own the commands get
	out     *lockedWriter
	err     *lockedWriter
	finish  context.CancelFunc // ends receiving, in good order

	killed atomic.Bool // by the second signal
	kill   chan struct{}
	begun  atomic.Int64
	acked  atomic.Int64
	nacked atomic.Int64
	lost   atomic.Int64 // their leases were, before the command ended

	mu     sync.Mutex
	broken error // why no command can be started
}

func (a *app) work(ctx context.Context, queues, argv []string, o *workOptions) error {
	c, err := a.dial()
	if err != nil {
		return err
	}
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return fmt.Errorf("cannot run the command: %w", err)
	}
	w := &worker{a: a, client: c, options: o, argv: argv, path: path, names: map[string]map[int64]string{}, eager: map[string]bool{}, kill: make(chan struct{}),
		out: &lockedWriter{w: a.out}, err: &lockedWriter{w: a.err}}
	w.environ = w.inherited()
	all, selector, err := w.prepare(ctx, queues)
	if err != nil {
		return err
	}
	ctx, w.finish = context.WithCancel(ctx)
	defer w.finish()
	defer w.watchSignals()()
	err = c.ConsumeAny(ctx, all, w.handle, client.ConsumeOptions{
		Selector: selector, Lease: o.lease, Concurrency: o.jobs, Prefetch: o.jobs, Receipts: true,
		OnError: func(d *client.Delivery, err error) {
			w.say("ipcctl: %s #%d: %s", d.Queue, d.Sequence, err)
		},
		OnReconnect: func(err error) { w.say("ipcctl: %s; trying again", err) },
	})
	w.say("%s", w.summary())
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.broken != nil:
		return w.broken
	case err != nil:
		return err
	case w.killed.Load(), o.number > 0 && w.acked.Load() < o.number && w.nacked.Load()+w.lost.Load() > 0:
		return reported(exitFailure)
	}
	return nil
}

// prepare finds out what the words mean: the queues, the names of their types, and the selector for all of them.
func (w *worker) prepare(ctx context.Context, words []string) (queues []string, selector client.Selector, err error) {
	n, err := w.a.named(ctx, words)
	if err != nil {
		return nil, selector, err
	}
	if len(n.names) > limits.ReceiveQueues {
		return nil, selector, usagef("%d queues: work takes up to %d at once; name fewer", len(n.names), limits.ReceiveQueues)
	}
	for _, name := range n.names {
		info, found := n.infos[name]
		if !found {
			info, err = w.client.GetQueue(ctx, name)
			if err != nil && !errors.Is(err, client.ErrAccessDenied) {
				return nil, selector, err
			}
		}
		w.names[name] = typeNamesByNumber(info.Settings.TypeNames)
		w.eager[name] = err == nil && info.Settings.BackoffMax == 0
	}
	selector, err = commonSelector(ctx, w.client, n.names, w.options.selector)
	return n.names, selector, err
}

// watchSignals lets the second signal kill the commands. What it returns ends that.
func (w *worker) watchSignals() (end func()) {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	over, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for seen := 0; ; {
			select {
			case <-signals:
				if seen++; seen == 1 {
					w.say("finishing what runs; once more kills it")
					w.finish()
					continue
				}
				w.killed.Store(true)
				close(w.kill)
				return
			case <-over:
				return
			}
		}
	}()
	return func() {
		close(over)
		<-ended
		signal.Stop(signals)
	}
}

// handle works on one message. What it returns becomes of it.
func (w *worker) handle(ctx context.Context, d *client.Delivery) error {
	n := w.begun.Add(1)
	if most := w.options.number; most > 0 {
		if n >= most {
			w.finish()
		}
		if n > most {
			return w.giveBack(ctx, d)
		}
	}
	if w.stopped() {
		return w.giveBack(ctx, d)
	}
	result, err := w.run(ctx, d)
	switch {
	case err != nil: // no message's fault
		w.mu.Lock()
		w.broken = fmt.Errorf("cannot run the command: %w", err)
		w.mu.Unlock()
		w.finish()
		return w.giveBack(ctx, d)
	case result.failure == "" && w.options.reply:
		if err := w.sendReply(ctx, d, result.output); err != nil {
			result.failure = "the reply could not be sent: " + err.Error()
		}
	}
	switch {
	case ctx.Err() != nil:
		w.lost.Add(1)
		w.begun.Add(-1) // another may take its place, unless it was the last
		w.tell(d, "the lease was lost, it comes again")
		return ctx.Err()
	case result.failure != "" && w.killed.Load():
		return w.giveBack(ctx, d)
	case result.failure == "":
		w.acked.Add(1)
		return nil
	}
	w.nacked.Add(1)
	w.tell(d, "nacked, "+result.failure)
	failure := errors.New(result.failure)
	switch delay := w.options.nackDelay; {
	case delay >= 0:
		return client.NackAfter(failure, delay)
	case w.eager[d.Queue]:
		return client.NackAfter(failure, backoff(d.Attempts))
	}
	return failure
}

// backoff is how long a message waits that has failed so often before, where its queue has no back-off: a command that fails at once
// must not use up all attempts at once.
func backoff(attempts int) time.Duration {
	return min(time.Second<<min(attempts, 6), time.Minute)
}

func (w *worker) stopped() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.broken != nil || w.killed.Load()
}

// giveBack returns a message without counting an attempt. Where that fails its lease will end.
func (w *worker) giveBack(ctx context.Context, d *client.Delivery) error {
	ctx, cancel := context.WithTimeout(ctx, settleGrace)
	defer cancel()
	_ = d.Release(ctx)
	return nil
}

func (w *worker) summary() string {
	acked, nacked := w.acked.Load(), w.nacked.Load()
	text := fmt.Sprintf("worked on %s: %d acked, %d nacked", count(acked+nacked, "message"), acked, nacked)
	if lost := w.lost.Load(); lost > 0 {
		text += fmt.Sprintf("; the leases of %d more were lost, they come again", lost)
	}
	return text
}

// sendReply answers the message. That nobody waits for the answer any more is no failure of the message.
func (w *worker) sendReply(ctx context.Context, d *client.Delivery, body []byte) error {
	if d.ReplyTo == "" {
		w.tell(d, "it names no queue for replies; what the command wrote is dropped")
		return nil
	}
	late, err := w.client.Reply(ctx, d, client.Message{Body: body})
	if late {
		w.tell(d, "nobody waits for its reply any more")
	}
	return err
}

// tell says what came of a message, unless that is not wanted.
func (w *worker) tell(d *client.Delivery, what string) {
	if !w.options.quiet {
		w.say("ipcctl: %s #%d: %s", d.Queue, d.Sequence, what)
	}
}

func (w *worker) say(format string, args ...any) {
	fmt.Fprintln(w.err, escapeLine(strings.TrimSpace(fmt.Sprintf(format, args...))))
}

// lockedWriter takes writes from several goroutines.
type lockedWriter struct {
	mu sync.Mutex
	w  interface{ Write([]byte) (int, error) }
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}
