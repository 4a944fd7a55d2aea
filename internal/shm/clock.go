package shm

import "time"

// clock tells the time of day for frames. Asking the system takes longer than publishing: within a burst the
// processor's tick counter tells whether the last answer is still good, to a microsecond or so.
type clock struct {
	ticks uint64
	nanos int64
}

// now is nanoseconds since 1970.
func (c *clock) now() int64 {
	t := ticks()
	if t-c.ticks >= ticksStale { // also if the counter went back, on another core
		c.nanos = time.Now().UnixNano()
		c.ticks = t
	}
	return c.nanos
}
