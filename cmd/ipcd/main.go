// Command ipcd is the daemon through which the programs of a host exchange typed messages.
package main

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/ipcd/ipcd/broker"
	"github.com/ipcd/ipcd/broker/journal"
	"github.com/ipcd/ipcd/internal/reason"
)

// Exit codes. The last two are those of sysexits(3).
const (
	exitFailure = 1
	exitUsage   = 2  // of the command line or the configuration
	exitDamage  = 65 // the journal, or another file of the state directory, is damaged; starting again does not help
	exitDisk    = 74 // the journal could not be written, or read
)

// usageError is a mistake on the command line or in the configuration.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func main() {
	err := newCommand().Execute()
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, "ipcd:", err)
	var usage usageError
	if errors.As(err, &usage) {
		os.Exit(exitUsage)
	}
	var damage broker.DamageError
	if errors.As(err, &damage) || reason.Of(err) == reason.Damaged {
		os.Exit(exitDamage)
	}
	if errors.Is(err, journal.ErrFailed) || errors.Is(err, syscall.EIO) {
		os.Exit(exitDisk)
	}
	os.Exit(exitFailure)
}
