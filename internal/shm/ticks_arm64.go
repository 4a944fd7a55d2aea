package shm

// ticksStale is 5 ms of the generic timer at 24 MHz, and less where it is faster.
const ticksStale = 120_000

// ticksApart is 5 us of the generic timer at 24 MHz.
const ticksApart = 120

// ticks reads the processor's counter-timer.
func ticks() uint64

// pause tells the processor that this is a waiting loop.
func pause()
