package main

import "fmt"

// status is a line about what the daemon holds.
func (d *instance) status() string {
	queues, rings, doors := d.broker.Totals(), d.rings.Totals(), d.connections()
	clients := 0
	for _, n := range doors {
		clients += n
	}
	line := fmt.Sprintf("serving %s with %s, %s, %s", plural(int64(queues.Queues), "queue"), plural(queues.Messages, "message"), plural(int64(rings.Rings), "ring"), plural(int64(clients), "client"))
	if s := d.broker.Storage(); s.Full {
		line += "; the disk is full: sends are refused"
	} else if len(s.Damaged) > 0 {
		line += fmt.Sprintf("; %s read-only, since the journal is damaged", plural(int64(len(s.Damaged)), "queue"))
	}
	return line
}

func plural(n int64, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
