package shm

import "time"

// clock tells the time of day for frames. Asking the system takes longer than publishing does. So the processor's tick
// counter tells how long ago that was, at a rate that is measured anew each few milliseconds: the answer is good to about
// a microsecond.
type clock struct {
	anchor time.Time // when the system was asked
	ticks  uint64    // at that time
	nanos  int64     // the same, since 1970
	rate   float64   // nanoseconds a tick, 0: not known yet
}

const rateMax = 100 // a counter of 10 MHz

// now is nanoseconds since 1970.
func (c *clock) now() int64 {
	if since := ticks() - c.ticks; c.rate > 0 && since < ticksStale { // not if the counter went back, on another core
		return c.nanos + int64(float64(since)*c.rate)
	}
	return c.ask()
}

// ask asks the system.
func (c *clock) ask() int64 {
	t := ticks()
	at := time.Now()
	if ticks()-t > ticksApart { // it was interrupted in between: nothing can be told of the two
		c.ticks, c.rate = 0, 0
		return at.UnixNano()
	}
	elapsed, since := at.Sub(c.anchor), t-c.ticks // on the monotonic clock: the other one may have been set
	if c.ticks != 0 && elapsed < time.Millisecond && c.rate == 0 {
		return at.UnixNano() // too soon to tell the rate
	}
	rate := float64(elapsed) / float64(since)
	switch {
	case c.ticks == 0 || elapsed > time.Minute || !(rate > 0 && rate < rateMax):
		c.rate = 0
	case c.rate > 0 && (rate > c.rate*1.01 || rate < c.rate*0.99):
		c.rate = 0 // the machine was moved, or suspended
	default:
		c.rate = rate
	}
	c.anchor, c.ticks, c.nanos = at, t, at.UnixNano()
	return c.nanos
}
