package journal

// scanned is what a walk over the frames of a segment found.
type scanned struct {
	index    []byte     // of its frames
	end      int64      // of the last frame
	last     Number     // of the last frame, or up to which frames were promised and are lost
	run      uint32     // of the last frame
	promised Number     // up to which the frames say that all were durable
	oldest   Generation // the last head frame's; 0: none
}

// candidate is a frame found by looking at every place where one may be.
type candidate struct {
	frame
	offset int64
}

// hunt finds all frames behind an offset, whatever their number and run.
func hunt(data []byte, from int64, k keys, mask uint32) []candidate {
	var all []candidate
	for at := from; at+frameHeader <= int64(len(data)); at += payloadAlign {
		if le.Uint32(data[at+36:]) != k.magic {
			continue
		}
		if f, _, ok := decodeFrame(data[at:], k, mask); ok {
			all = append(all, candidate{f, at})
		}
	}
	return all
}

// scan walks over the frames of a segment up to the first that is not valid: not whole, not the next
// number, or of an earlier run than the one before. There the log ends, and what lies behind was never
// promised, unless a frame behind says otherwise or need, up to which there must be frames. Then it is
// damage, and if that is accepted the walk goes on with the next valid frame.
func (r *recovery) scan(f *found, data []byte, limit int64, need Number, payloadsToo bool) (scanned, error) {
	data = data[:limit]
	mask := r.keys.mask(f.header.generation)
	s := scanned{end: headerBytes, last: f.header.first - 1, run: f.header.run}
	at, expected := s.end, s.last+1
	var behind []candidate // hunted for once, at the first hole
	hunted := false
	for {
		h, meta, ok := decodeFrame(data[at:], r.keys, mask)
		ok = ok && h.number == expected && h.run >= s.run
		if ok && (!payloadsToo || checkPayloads(data[at+frameHeader+align8(int64(h.meta)):at+h.bytes()], mask) < 0) {
			s.add(h, meta, at)
			at, expected = s.end, s.last+1
			continue
		}
		if !hunted {
			behind, hunted = hunt(data, at, r.keys, mask), true
		}
		promised, next := need, -1
		for i, c := range behind {
			if c.offset < at || c.run < s.run {
				continue
			}
			promised = max(promised, c.durable)
			if next < 0 && c.offset > at && c.number >= expected {
				next = i
			}
		}
		if promised < expected {
			s.last = expected - 1
			return s, nil
		}
		d := Damage{File: f.name, Generation: f.header.generation, Offset: at, After: s.last}
		rotten := ok && h.number <= promised
		switch {
		case rotten:
			d.Reason, d.Before = "a payload can not be read", h.number
		case next >= 0:
			d.Reason, d.Before = "frames can not be read", behind[next].number
		default:
			d.Reason, d.Before = "the log ends here, but more was promised to be durable", promised+1
		}
		if err := r.damage(d); err != nil {
			return s, err
		}
		switch {
		case rotten:
			s.add(h, meta, at) // whoever reads the payload finds out
			at, expected = s.end, s.last+1
		case next >= 0:
			at, expected = behind[next].offset, behind[next].number
		default:
			s.last = promised
			return s, nil
		}
	}
}

func (s *scanned) add(h frame, meta []byte, offset int64) {
	s.index = appendIndex(s.index, &h, h.number-s.last-1, offset-s.end, meta)
	s.end, s.last, s.run = offset+h.bytes(), h.number, h.run
	s.promised = max(s.promised, h.durable)
	if h.kind == kindHead {
		s.oldest = max(s.oldest, Generation(le.Uint64(meta)))
	}
}
