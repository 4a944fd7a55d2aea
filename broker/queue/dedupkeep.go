package queue

import "math"

// idExtent is ids with neighbouring places that were last emitted to the same generation of the journal.
type idExtent struct {
	end uint64 // place behind the last
	gen uint64
}

const (
	unstamped  = math.MaxUint64 // the generation of ids that were emitted again, until Stamp
	idsPerEach = 4096           // ids of one record
)

// Stamp says that all that was emitted up to now lies in that generation of the journal, or a later one.
func (q *Queue) Stamp(gen uint64) {
	q.schemas.stamp(gen)
	if l := q.loading; l != nil {
		for i := len(l.ids) - 1; i >= 0 && l.ids[i].gen == unstamped; i-- {
			l.ids[i].gen = gen
		}
		return
	}
	q.ids.stamp(gen)
}

func (d *dedup) stamp(gen uint64) {
	for len(d.extents) > 0 && d.extents[0].end <= d.start {
		d.extents = d.extents[1:]
	}
	if d.kept {
		d.kept = false
		all := d.extents
		d.extents = d.extents[:0]
		for _, e := range all {
			if e.gen == unstamped {
				e.gen = gen
			}
			d.extents = appendExtent(d.extents, e)
		}
	}
	stamped := d.start
	if n := len(d.extents); n > 0 {
		stamped = d.extents[n-1].end
	}
	if d.end > stamped {
		d.extents = appendExtent(d.extents, idExtent{d.end, gen})
	}
}

// appendExtent adds an extent, as part of the last one if that is of the same generation.
func appendExtent(extents []idExtent, e idExtent) []idExtent {
	if last := len(extents) - 1; last >= 0 && extents[last].gen == e.gen {
		extents[last].end = e.end
		return extents
	}
	return append(extents, e)
}

// KeepIDs emits again the dedup ids that are still remembered and were last emitted to that generation of
// the journal or an earlier one, at most so many; more says that there are others.
func (q *Queue) KeepIDs(now Instant, gen uint64, most int) (more bool) {
	d := &q.ids
	d.forget(now.Wall - q.settings.DedupWindow.Nanoseconds())
	var extents []idExtent
	var ids []dedupEntry
	from := d.start
	for _, e := range d.extents {
		if e.end <= from {
			continue
		}
		if e.gen <= gen {
			until := min(e.end, from+uint64(most-len(ids)))
			if until > from {
				for place := from; place < until; place++ {
					ids = append(ids, *d.entry(place))
				}
				extents = appendExtent(extents, idExtent{until, unstamped})
			}
			if more = more || until < e.end; until == e.end {
				from = e.end
				continue
			}
		}
		extents = appendExtent(extents, e)
		from = e.end
	}
	d.extents = extents
	d.kept = d.kept || len(ids) > 0
	for len(ids) > 0 {
		n := min(len(ids), idsPerEach)
		q.issue(&Record{kind: recIDs, At: now, ids: ids[:n]})
		ids = ids[n:]
	}
	return more
}

// IDs is how many dedup ids are remembered, those included that are to be forgotten by now.
func (q *Queue) IDs() int64 { return int64(q.ids.len()) }
