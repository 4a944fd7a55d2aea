package queue

// tournament is a winner tree over numbered players: the winner is known at once, and a change of one
// player is replayed along its path, in as many steps as the logarithm of their number.
type tournament struct {
	size   int      // of the lowest round: a power of two
	winner []uint32 // winner[1] is the overall winner; children of i are 2i and 2i+1; 0: nobody plays
	beats  func(a, b uint32) bool
}

// leaf i of the lowest round is player i; player 0 never plays.

// resize makes room for players below n, asking plays which of them are in.
func (t *tournament) resize(n int, plays func(p uint32) bool) {
	size := 1
	for size < n {
		size *= 2
	}
	t.size = size
	t.winner = make([]uint32, 2*size)
	for p := 1; p < n; p++ {
		if plays(uint32(p)) {
			t.winner[size+p] = uint32(p)
		}
	}
	for i := size - 1; i > 0; i-- {
		t.winner[i] = t.better(t.winner[2*i], t.winner[2*i+1])
	}
}

func (t *tournament) better(a, b uint32) uint32 {
	if a == 0 || b != 0 && t.beats(b, a) {
		return b
	}
	return a
}

// update replays player p's matches; plays says whether it is in at all.
func (t *tournament) update(p uint32, plays bool) {
	i := t.size + int(p)
	t.winner[i] = 0
	if plays {
		t.winner[i] = p
	}
	for i /= 2; i > 0; i /= 2 {
		t.winner[i] = t.better(t.winner[2*i], t.winner[2*i+1])
	}
}

// first is the winner, 0 if nobody plays.
func (t *tournament) first() uint32 {
	if len(t.winner) == 0 {
		return 0
	}
	return t.winner[1]
}

// firstBut is the winner among all but p.
func (t *tournament) firstBut(p uint32) uint32 {
	if w := t.first(); w != p {
		return w
	}
	best := uint32(0)
	for i := t.size + int(p); i > 1; i /= 2 {
		best = t.better(best, t.winner[i^1])
	}
	return best
}
