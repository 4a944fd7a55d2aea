package journal

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// replay visits the frames of all segments in order.
func (r *recovery) replay(visit func(Entry) error) error {
	for _, f := range r.live {
		r.total += f.size
	}
	last := Number(0)
	for i, f := range r.live {
		var next *found
		if i+1 < len(r.live) {
			next = r.live[i+1]
		}
		index, err := r.indexOf(f, next)
		if err != nil {
			return err
		}
		if last != 0 && f.header.first != last+1 && f.header.first <= last {
			if err := r.damage(Damage{File: f.name, Generation: f.header.generation, After: last, Before: f.header.first,
				Reason: "its frames overlap those before"}); err != nil {
				return err
			}
		}
		last = f.last
		if err := visitIndex(f.slot, f.header.generation, index, f.header.first, f.header.segmentBytes, &f.frames, visit); err != nil {
			return err
		}
		if r.done += f.size; r.progress != nil {
			r.progress(r.done, r.total)
		}
	}
	return nil
}

// visitIndex visits the frames of data that an index names, and counts all frames.
func visitIndex(slot uint16, g Generation, index []byte, first Number, limit int64, frames *int64, visit func(Entry) error) error {
	reader := newIndexReader(index, first, limit)
	for {
		e, ok := reader.next()
		if !ok {
			break
		}
		*frames++
		if e.kind != kindData {
			continue
		}
		if err := visit(Entry{Number: e.number, Generation: g, Meta: e.meta, Payloads: Place{makePosition(slot, e.payloads())}}); err != nil {
			return err
		}
	}
	if len(reader.rest) > 0 {
		return fmt.Errorf("index of %s: entry of frame %d makes no sense", fileName(slot), reader.number+1)
	}
	return nil
}

// indexOf returns the index of a segment, from its end or, where that can not be, from its frames.
func (r *recovery) indexOf(f, next *found) ([]byte, error) {
	if next == nil {
		f.end, f.last = r.tail.end, r.tail.last
		stored, foot, err := readIndexFrom(bytes.NewReader(r.newestData), f.header, r.keys)
		// The index may be on disk while a frame before it is not, or be the one of frames that were cut off.
		f.sealed = err == nil && !f.rescued && foot.end == f.end && foot.last == f.last && foot.run == r.tail.run && bytes.Equal(stored, r.tail.index)
		return r.tail.index, nil
	}
	f.sealed = true
	consecutive := next.header.generation == f.header.generation+1
	adjacent := consecutive && !next.rescued
	stored, foot, err := r.readIndex(f)
	if err != nil {
		return nil, err
	}
	good := stored != nil && !f.rescued
	if adjacent {
		good = good && foot.end == next.header.previousEnd && foot.last+1 == next.header.first
	}
	if good && !r.verify {
		f.end, f.last = foot.end, foot.last
		return stored, nil
	}
	data, err := r.content(f)
	if err != nil {
		return nil, err
	}
	if good {
		f.end, f.last = foot.end, foot.last
		return stored, r.checkFrames(f, data, stored)
	}
	// The next segment was begun after this one was durable, all of it.
	limit, need := int64(len(data)), Number(0)
	if consecutive {
		need = next.header.first - 1
	}
	if adjacent && next.header.previousEnd >= headerBytes && next.header.previousEnd <= limit {
		limit = next.header.previousEnd
	}
	s, err := r.scan(f, data, limit, need, r.verify)
	if err != nil {
		return nil, err
	}
	f.end, f.last = s.end, s.last
	if r.verify {
		return s.index, r.damage(Damage{File: f.name, Generation: f.header.generation, Offset: f.header.segmentBytes - footerBytes, After: s.last,
			Reason: "its index can not be read, but the frames were found without"})
	}
	return s.index, nil
}

// checkFrames holds a segment's frames and payloads against its index.
func (r *recovery) checkFrames(f *found, data, index []byte) error {
	mask := r.keys.mask(f.header.generation)
	reader := newIndexReader(index, f.header.first, f.end)
	for {
		e, ok := reader.next()
		if !ok {
			return nil // what makes no sense in the index, the visit will find
		}
		d := Damage{File: f.name, Generation: f.header.generation, Offset: e.offset, After: e.number - 1, Before: e.number + 1}
		switch h, meta, ok := decodeFrame(data[e.offset:f.end], r.keys, mask); {
		case !ok:
			d.Reason = "the frame can not be read; the index holds its metadata"
		case h.number != e.number || h.kind != e.kind || h.bytes() != e.bytes || !bytes.Equal(meta, e.meta):
			d.Reason = "the frame is not the one that the index names"
		default:
			at := checkPayloads(data[e.payloads():e.offset+e.bytes], mask)
			if at < 0 {
				continue
			}
			d.Offset = e.payloads() + at
			d.Reason = "a payload can not be read"
		}
		if err := r.damage(d); err != nil {
			return err
		}
	}
}

// readIndex reads the index at the end of a segment; it is nil if that is not whole.
func (r *recovery) readIndex(f *found) (index []byte, foot footer, err error) {
	file, err := r.fs.OpenRead(r.path(f.name))
	if err != nil {
		return nil, foot, fmt.Errorf("open a segment: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	index, foot, _ = readIndexFrom(file, f.header, r.keys)
	return index, foot, nil
}

// readIndexFrom returns a nil index, and why, if there is no whole one.
func readIndexFrom(file io.ReaderAt, h segmentHeader, k keys) (index []byte, foot footer, err error) {
	mask := k.mask(h.generation)
	var b [footerBytes]byte
	if n, err := file.ReadAt(b[:], h.segmentBytes-footerBytes); n < len(b) {
		return nil, foot, err
	}
	foot, ok := decodeFooter(b[:], h.segmentBytes, h.generation, mask)
	if !ok {
		return nil, foot, ErrChecksum
	}
	index = make([]byte, foot.indexBytes) // bounded by the segment: the footer's offset was checked
	if n, err := file.ReadAt(index, foot.indexOffset); n < len(index) {
		return nil, foot, err
	}
	if crc32.Checksum(index, castagnoli) != foot.indexSum {
		return nil, foot, ErrChecksum
	}
	return index, foot, nil
}
