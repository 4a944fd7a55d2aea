// Command ipcd is the daemon through which the programs of a host exchange typed messages.
package main

import (
	"errors"
	"fmt"
	"os"
)

// Exit codes.
const (
	exitFailure = 1
	exitUsage   = 2 // of the command line or the configuration
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
	os.Exit(exitFailure)
}
