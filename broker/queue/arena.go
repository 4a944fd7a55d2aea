package queue

import "math/bits"

// arenaChunk is how many items of an arena are allocated together: as many as a word has bits.
const arenaChunk = 64

// arena hands out items of one type, named by number, from chunks: the garbage collector sees a
// pointer per chunk, not per item, and an empty chunk goes back to it. Number 0 is never handed out.
type arena[T any] struct {
	chunks  []arenaBlock[T]
	vacant  []uint32 // numbers of dropped chunks
	partial uint32   // first of the linked chunks with free items, as its number + 1; 0: none
	live    int
}

// arenaBlock is a chunk. Its items stand alone: 64 of 16 or 24 bytes are a size that Go allocates without waste.
type arenaBlock[T any] struct {
	items      *[arenaChunk]T // nil where the chunk was dropped
	free       uint64         // a bit per item
	next, prev uint32         // among the chunks with free items, as number + 1; 0: none
}

// at returns the item of that number, which must be in use.
func (a *arena[T]) at(n uint32) *T {
	n--
	return &a.chunks[n/arenaChunk].items[n%arenaChunk]
}

// alloc returns a zeroed item and its number.
func (a *arena[T]) alloc() (uint32, *T) {
	if a.partial == 0 {
		a.grow()
	}
	c := a.partial - 1
	block := &a.chunks[c]
	i := uint32(bits.TrailingZeros64(block.free))
	block.free &^= 1 << i
	if block.free == 0 {
		a.unlink(c)
	}
	a.live++
	item := &block.items[i]
	var zero T
	*item = zero
	return c*arenaChunk + i + 1, item
}

// release takes the item back.
func (a *arena[T]) release(n uint32) {
	n--
	c := n / arenaChunk
	block := &a.chunks[c]
	if block.free == 0 {
		a.link(c)
	}
	block.free |= 1 << (n % arenaChunk)
	a.live--
	// One empty chunk is kept, so that a queue that fills and empties does not allocate each time.
	if ^block.free == 0 && (a.partial != c+1 || block.next != 0) {
		a.unlink(c)
		*block = arenaBlock[T]{}
		a.vacant = append(a.vacant, c)
	}
}

func (a *arena[T]) grow() {
	var c uint32
	block := arenaBlock[T]{items: new([arenaChunk]T), free: ^uint64(0)}
	if n := len(a.vacant); n > 0 {
		c = a.vacant[n-1]
		a.vacant = a.vacant[:n-1]
		a.chunks[c] = block
	} else {
		c = uint32(len(a.chunks))
		a.chunks = append(a.chunks, block)
	}
	a.link(c)
}

func (a *arena[T]) link(c uint32) {
	block := &a.chunks[c]
	block.next, block.prev = a.partial, 0
	if a.partial != 0 {
		a.chunks[a.partial-1].prev = c + 1
	}
	a.partial = c + 1
}

func (a *arena[T]) unlink(c uint32) {
	block := &a.chunks[c]
	if block.next != 0 {
		a.chunks[block.next-1].prev = block.prev
	}
	if block.prev != 0 {
		a.chunks[block.prev-1].next = block.next
	} else {
		a.partial = block.next
	}
	block.next, block.prev = 0, 0
}
