package shm

// ticksStale is 2 to 5 ms of the time-stamp counter.
const ticksStale = 10_000_000

// ticksApart is 2 to 5 us.
const ticksApart = 10_000

// ticks reads the processor's time-stamp counter.
func ticks() uint64

// pause tells the processor that this is a waiting loop: a core's other thread gets its turn.
func pause()
