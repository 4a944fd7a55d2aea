package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/ipcd/ipcd/client"
	"github.com/ipcd/ipcd/internal/reason"
)

// Exit codes that do not come from the table of reasons.
const (
	exitFailure  = 1
	exitUsage    = 2
	exitEmpty    = 6
	exitInternal = 70
)

// failure marks an error as met while running, not while reading the command line.
type failure struct {
	err     error
	timeout time.Duration // the command's; 0: none
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// usageError is a command line that asks for what cannot be.
type usageError struct{ message string }

func (e *usageError) Error() string { return e.message }

func usagef(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// reported is an exit code whose cause was said before.
type reported int

func (r reported) Error() string { return fmt.Sprintf("exit %d", int(r)) }

// empty says that there was nothing to receive.
type empty struct{ message string }

func (e *empty) Error() string { return e.message }

// noAnswer says that a daemon which answers at once did not answer in time.
type noAnswer struct {
	address string
	limit   time.Duration
	err     error
}

func (e *noAnswer) Error() string {
	return fmt.Sprintf("no answer from %s within %v", e.address, e.limit)
}
func (e *noAnswer) Unwrap() error { return e.err }

// answered returns err, as noAnswer if it says that the limit has passed and no more than that.
func (a *app) answered(err error, limit time.Duration) error {
	if a.client == nil || !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, client.ErrOutcomeUnknown) {
		return err
	}
	return &noAnswer{a.client.Target(), limit, err}
}

// writeError is a failure to write to stdout.
type writeError struct{ err error }

func (e *writeError) Error() string { return "cannot write the output: " + e.err.Error() }
func (e *writeError) Unwrap() error { return e.err }

func outputError(err error) error {
	if err == nil {
		return nil
	}
	return &writeError{err}
}

// isBrokenPipe reports whether err says that the reader of our output has seen enough.
func isBrokenPipe(err error) bool {
	var w *writeError
	return errors.As(err, &w) && errors.Is(err, syscall.EPIPE)
}

// isTimeout reports whether err says that the time was over, by our clock or by the daemon's.
func isTimeout(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, client.ErrTimedOut)
}

// exitCode returns the code for an error: the table's, where the error has a reason.
func exitCode(err error) int {
	var (
		done    reported
		usage   *usageError
		nothing *empty
		late    *noAnswer
		settle  *client.SettleError
		e       *client.Error
	)
	switch {
	case err == nil, isBrokenPipe(err):
		return 0
	case errors.As(err, &done):
		return int(done)
	case errors.As(err, &usage):
		return exitUsage
	case errors.As(err, &nothing):
		return exitEmpty
	case errors.As(err, &late):
		return reason.Unreachable.Lookup().Exit
	case errors.As(err, &settle):
		worst := exitFailure
		for _, f := range settle.Failures {
			worst = max(worst, reason.Reason(f.Reason).Lookup().Exit)
		}
		return worst
	case errors.Is(err, client.ErrOutcomeUnknown) && isTimeout(err):
		return reason.TimedOut.Lookup().Exit
	case errors.As(err, &e):
		return reason.Reason(e.Reason).Lookup().Exit
	case errors.Is(err, context.DeadlineExceeded):
		return reason.TimedOut.Lookup().Exit
	}
	return exitFailure
}

// report says on one line what went wrong and what to do. timeout is the command's, 0 for none.
func (a *app) report(err error, timeout time.Duration) {
	var done reported
	if errors.As(err, &done) || isBrokenPipe(err) {
		return
	}
	text := strings.ReplaceAll(err.Error(), context.DeadlineExceeded.Error(), "timed out")
	if errors.Is(err, client.ErrOutcomeUnknown) && isTimeout(err) {
		text = "timed out: " + text
	}
	var late *noAnswer
	switch {
	case errors.As(err, &late):
		text = late.Error() + ": it hangs, or is stopped, or needs longer (--timeout)"
	case errors.Is(err, client.ErrUnreachable):
		text = a.unreachable(err)
	case errors.Is(err, client.ErrUnauthenticated):
		text += "; see --tls-cert, --tls-key and --tls-ca"
	case errors.Is(err, context.Canceled):
		text = "interrupted"
		if errors.Is(err, client.ErrOutcomeUnknown) {
			text += ": " + err.Error()
		}
	case isTimeout(err) && timeout > 0:
		text = fmt.Sprintf("%s (the limit was %v; --timeout allows more)", strings.TrimSuffix(text, "."), timeout)
	}
	var e *client.Error
	if errors.As(err, &e) && e.RetryAfter > 0 {
		text += fmt.Sprintf(" (trying again after %v may help)", e.RetryAfter)
	}
	a.say("ipcctl: %s", escapeLine(text))
}

// unreachable names the address that did not answer, why, and what to do.
func (a *app) unreachable(err error) string {
	text := err.Error()
	var inner *client.Error
	if errors.As(errors.Unwrap(err), &inner) { // TLS: something answers, and the text says what to do
		return text
	}
	var dial *net.OpError
	if errors.As(err, &dial) && a.client != nil {
		text = fmt.Sprintf("no ipcd answers at %s (%v)", a.client.Target(), dial.Err)
	}
	if strings.HasSuffix(text, "?") { // it has asked the right question already
		return text
	}
	return text + "; start one with ipcd or systemctl start ipcd, or name another with --address or IPCD_ADDRESS"
}
