package queue

// A tree holds slots ordered by sequence, through their left and right fields alone. It is a treap
// (Seidel and Aragon, 1996): a search tree by sequence and a heap by a hash of the sequence, which
// keeps its depth logarithmic whatever the order of arrival.
//
// It serves messages that come back into the middle of an order that others only append to.

// weight is the heap order of the treap: a mix of the sequence (the finalizer of SplitMix64).
func weight(seq uint64) uint64 {
	seq = (seq ^ seq>>30) * 0xbf58476d1ce4e5b9
	seq = (seq ^ seq>>27) * 0x94d049bb133111eb
	return seq ^ seq>>31
}

// treeInsert adds slot n to the tree at root and returns the new root.
func (x *index) treeInsert(root, n uint32) uint32 {
	s := x.at(n)
	s.left, s.right = 0, 0
	w := weight(s.seq)
	link := &root
	for *link != 0 {
		t := x.at(*link)
		if weight(t.seq) < w {
			break
		}
		if s.seq < t.seq {
			link = &t.left
		} else {
			link = &t.right
		}
	}
	below := *link
	*link = n
	// Split what was there around s.
	l, r := &s.left, &s.right
	for below != 0 {
		t := x.at(below)
		if t.seq < s.seq {
			*l = below
			l = &t.right
			below = t.right
		} else {
			*r = below
			r = &t.left
			below = t.left
		}
	}
	*l, *r = 0, 0
	return root
}

// treeRemove takes slot n, which is in it, out of the tree at root and returns the new root.
func (x *index) treeRemove(root, n uint32) uint32 {
	s := x.at(n)
	link := &root
	for *link != n {
		t := x.at(*link)
		if s.seq < t.seq {
			link = &t.left
		} else {
			link = &t.right
		}
	}
	// Join the two halves in its place.
	l, r := s.left, s.right
	for l != 0 && r != 0 {
		ls, rs := x.at(l), x.at(r)
		if weight(ls.seq) > weight(rs.seq) {
			*link = l
			link = &ls.right
			l = ls.right
		} else {
			*link = r
			link = &rs.left
			r = rs.left
		}
	}
	*link = l + r // one of them is 0
	s.left, s.right = 0, 0
	return root
}

// treeMin returns the slot of the lowest sequence, 0 if the tree is empty.
func (x *index) treeMin(root uint32) uint32 {
	n := uint32(0)
	for root != 0 {
		n = root
		root = x.at(root).left
	}
	return n
}

// treeWalk visits the slots with sequences from first on, in order, until visit returns false.
func (x *index) treeWalk(root uint32, first uint64, visit func(n uint32, s *slot) bool) bool {
	for root != 0 {
		s := x.at(root)
		right := s.right
		if s.seq >= first {
			if !x.treeWalk(s.left, first, visit) || !visit(root, s) {
				return false
			}
		}
		root = right
	}
	return true
}
