package shm

// ticksStale is 1 us of the generic timer at 24 MHz, and less where it is faster.
const ticksStale = 24

// ticks reads the processor's counter-timer.
func ticks() uint64

// pause tells the processor that this is a waiting loop.
func pause()
