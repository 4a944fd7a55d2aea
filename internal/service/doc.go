// Package service speaks with the service manager: it takes the sockets and files that the manager gives to a process at
// its start, tells the manager how the process is doing, and has it keep files over a restart. See sd_listen_fds(3),
// sd_notify(3) and sd_pid_notify_with_fds(3). Without a service manager all of it does nothing.
package service

import (
	"fmt"
	"strings"
)

// storedPrefix begins the names of the files that a Manager stores, and tells them from sockets, which have the names
// of their units.
const storedPrefix = "stored-"

// fdNameBytes is how long the name of a descriptor may be.
const fdNameBytes = 255

// checkName says what is wrong with the name of a file to be stored, if anything.
func checkName(name string) error {
	bad := strings.ContainsFunc(name, func(c rune) bool { return c < ' ' || c >= 0x7f || c == ':' })
	if most := fdNameBytes - len(storedPrefix); bad || name == "" || len(name) > most {
		return fmt.Errorf("name %.300q of a file to be stored: it must have 1 to %d printable ASCII characters, and no colon", name, most)
	}
	return nil
}
