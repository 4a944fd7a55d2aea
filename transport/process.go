package transport

import (
	"os"
	"strconv"
	"strings"
)

// CommandOf returns what a process calls itself (proc_pid_comm(5)), "" if that cannot be seen.
func CommandOf(pid int32) string {
	if pid <= 0 {
		return ""
	}
	comm, err := os.ReadFile("/proc/" + strconv.Itoa(int(pid)) + "/comm")
	if err != nil {
		return ""
	}
	return Printable(strings.TrimSuffix(string(comm), "\n"))
}

// Printable escapes in what a stranger calls itself whatever is not printable, as a Go string would, or no UTF-8.
func Printable(s string) string {
	quoted := strconv.Quote(s)
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}
