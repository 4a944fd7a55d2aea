package shm

// ticksStale is 0.4 to 1 us of the time-stamp counter, at 2 to 5 GHz.
const ticksStale = 2000

// ticks reads the processor's time-stamp counter.
func ticks() uint64

// pause tells the processor that this is a waiting loop: a core's other thread gets its turn.
func pause()
