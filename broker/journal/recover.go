package journal

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/ipcd/ipcd/internal/vfs"
)

// found is a segment file as recovery finds it.
type found struct {
	name   string
	slot   uint16
	size   int64
	header segmentHeader
	bad    string // why it can not be used; "": it can
	// rescued has a header that could not be read: what it would say was taken from the frames.
	rescued bool

	// After replay:
	end    int64
	last   Number
	sealed bool
	frames int64
}

// recovery reads a journal and changes nothing.
//
//	read headers -> newest by generation -> scan it: tail, head -> rescue what has a bad header
//	-> are all generations from the head on there? -> replay them in order
type recovery struct {
	fs       vfs.FS
	dir      string
	onDamage func(Damage) error
	verify   bool                    // read all frames and payloads, not only indexes
	progress func(done, total int64) // or nil

	identity [16]byte
	keys     keys
	names    map[string]bool
	files    []*found // by name
	temps    []string // half-made files
	live     []*found // by generation; after replay only those that are needed
	bad      []*found
	unused   []*found // may be used as spares
	damaged  bool     // some damage was accepted

	newest     *found
	newestData []byte
	tail       scanned

	done, total int64 // bytes, for progress
}

func fileName(slot uint16) string { return fmt.Sprintf("%04x%s", slot, extension) }

// slotOf reads a file's name.
func slotOf(name string) (uint16, bool) {
	digits, ok := strings.CutSuffix(name, extension)
	if !ok || len(digits) != 4 || strings.ToLower(digits) != digits {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 16, 16)
	return uint16(n), err == nil
}

func (r *recovery) path(name string) string { return filepath.Join(r.dir, name) }

// damage reports damage; nil goes on.
func (r *recovery) damage(d Damage) error {
	if err := r.onDamage(d); err != nil {
		return err
	}
	r.damaged = true
	return nil
}

// readHeaders finds the files and sorts them into live, bad and unused ones.
func (r *recovery) readHeaders() error {
	names, err := r.fs.ReadDir(r.dir)
	if err != nil {
		return fmt.Errorf("read the journal's directory: %w", err)
	}
	r.names = map[string]bool{}
	for _, name := range names {
		r.names[name] = true
		if strings.HasSuffix(name, spareExtension) {
			r.temps = append(r.temps, name)
		}
		slot, ok := slotOf(name)
		if !ok {
			continue
		}
		f := &found{name: name, slot: slot}
		if err := r.readHeader(f); err != nil {
			return err
		}
		r.files = append(r.files, f)
	}
	r.chooseIdentity()
	for _, f := range r.files {
		if err := r.classify(f); err != nil {
			return err
		}
	}
	slices.SortFunc(r.live, func(a, b *found) int { return cmp.Compare(a.header.generation, b.header.generation) })
	return r.dropTwins()
}

func (r *recovery) readHeader(f *found) (err error) {
	file, err := r.fs.OpenRead(r.path(f.name))
	if err != nil {
		return fmt.Errorf("open a segment: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if f.size, err = file.Size(); err != nil {
		return fmt.Errorf("size of %s: %w", f.name, err)
	}
	var b [headerUsed]byte
	if n, err := file.ReadAt(b[:], 0); n < len(b) && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the header of %s: %w", f.name, err)
	}
	f.header, err = decodeSegmentHeader(b[:])
	switch {
	case errors.Is(err, ErrNewer):
		return fmt.Errorf("%s has %w", f.name, err)
	case err != nil:
		f.bad = err.Error()
	case f.header.slot != f.slot:
		f.bad = fmt.Sprintf("it was %s when it was written", fileName(f.header.slot))
	}
	return nil
}

// chooseIdentity takes the identity that most of the files in use have.
func (r *recovery) chooseIdentity() {
	count := map[[16]byte]int{}
	most := 0
	for _, f := range r.files {
		if f.bad != "" || f.header.generation == 0 {
			continue
		}
		id := f.header.identity
		if count[id]++; count[id] > most {
			most, r.identity = count[id], id
		}
	}
	r.keys = makeKeys(r.identity)
}

func (r *recovery) classify(f *found) error {
	switch {
	case f.bad == errBadHeader.Error() && f.size < SegmentBytesMin:
		// It was made with its size before it got its name.
		f.bad = fmt.Sprintf("it is cut short to %d bytes", f.size)
	case f.bad == errBadHeader.Error():
		r.bad = append(r.bad, f) // what it is depends on the others
		return nil
	case f.bad != "":
	case f.header.generation == 0:
		r.unused = append(r.unused, f)
		return nil
	case f.header.identity != r.identity:
		f.bad = "it belongs to another journal"
	case f.size < f.header.segmentBytes:
		r.live = append(r.live, f)
		return r.damage(Damage{File: f.name, Generation: f.header.generation, Offset: f.size,
			Reason: fmt.Sprintf("it is cut short to %d of %d bytes", f.size, f.header.segmentBytes)})
	default:
		r.live = append(r.live, f)
		return nil
	}
	r.bad = append(r.bad, f)
	return r.damage(Damage{File: f.name, Generation: f.header.generation, Reason: f.bad})
}

// dropTwins leaves one file of each generation.
func (r *recovery) dropTwins() error {
	for i := 1; i < len(r.live); i++ {
		f, g := r.live[i], r.live[i].header.generation
		if r.live[i-1].header.generation != g {
			continue
		}
		f.bad = fmt.Sprintf("%s has the same generation", r.live[i-1].name)
		if err := r.damage(Damage{File: f.name, Generation: g, Reason: f.bad}); err != nil {
			return err
		}
		r.live = slices.Delete(r.live, i, i+1)
		r.bad = append(r.bad, f)
		i--
	}
	return nil
}

// content reads a whole segment; what is missing at its end reads as zeros.
func (r *recovery) content(f *found) (data []byte, err error) {
	size := f.header.segmentBytes
	if size == 0 {
		size = min(f.size, SegmentBytesMax) // of a bad header
	}
	file, err := r.fs.OpenRead(r.path(f.name))
	if err != nil {
		return nil, fmt.Errorf("open a segment: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	data = make([]byte, size)
	const piece = 256 << 10
	for at := int64(0); at < min(size, f.size); at += piece {
		part := data[at:min(at+piece, size, f.size)]
		n, err := file.ReadAt(part, at)
		if n < len(part) {
			clear(part[n:])
			if err := r.damage(Damage{File: f.name, Generation: f.header.generation, Offset: at + int64(n), Reason: fmt.Sprintf("it can not be read: %v", err)}); err != nil {
				return nil, err
			}
		}
	}
	return data, nil
}

// run recovers the journal; visit gets each frame of data. A journal that is not there, or whose making was
// cut off before anything was stored, leaves newest nil.
func (r *recovery) run(visit func(Entry) error) error {
	if err := r.readHeaders(); err != nil {
		return err
	}
	if len(r.live) == 0 {
		return r.judgeBadAlone()
	}
	if err := r.scanNewest(); err != nil {
		return err
	}
	if err := r.rescueNewest(); err != nil {
		return err
	}
	oldest := min(max(r.newest.header.oldest, r.tail.oldest), r.newest.header.generation)
	if err := r.complete(oldest); err != nil {
		return err
	}
	return r.replay(visit)
}

// judgeBadAlone decides on files with bad headers where there are no others. One that begins like a header and
// has nothing behind it never held a frame: writing its first header was cut off.
func (r *recovery) judgeBadAlone() error {
	for _, f := range slices.Clone(r.bad) {
		if f.bad != errBadHeader.Error() { // the others are already reported
			continue
		}
		data, err := r.content(f)
		if err != nil {
			return err
		}
		if strings.HasPrefix(string(data[:min(headerBytes, len(data))]), segmentMagic) && !slices.ContainsFunc(data[min(headerBytes, len(data)):], func(b byte) bool { return b != 0 }) {
			f.bad = ""
			r.unused = append(r.unused, f)
			r.bad = slices.DeleteFunc(r.bad, func(o *found) bool { return o == f })
			continue
		}
		if err := r.damage(Damage{File: f.name, Reason: f.bad}); err != nil {
			return err
		}
	}
	return nil
}

func (r *recovery) scanNewest() (err error) {
	r.newest = r.live[len(r.live)-1]
	if r.newestData, err = r.content(r.newest); err != nil {
		return err
	}
	// Payloads too: what lies behind the last sync may be torn anywhere.
	r.tail, err = r.scan(r.newest, r.newestData, int64(len(r.newestData)), 0, true)
	return err
}

// rescueNewest looks whether a file with a bad header is newer than all others. Making a segment newer than
// the newest writes its header with the first frames in one go, but the header lies in one sector: it is the
// old one or the new one, not a bad one.
func (r *recovery) rescueNewest() error {
	for range r.bad {
		g := r.newest.header.generation + 1
		f, err := r.rescue(g, r.tail.last, r.tail.run)
		if err != nil || f == nil {
			return err
		}
		r.live = append(r.live, f)
		if err := r.scanNewest(); err != nil {
			return err
		}
	}
	return nil
}

// rescue finds the file with a bad header that has frames of a generation behind those given, and reports it.
func (r *recovery) rescue(g Generation, after Number, run uint32) (*found, error) {
	for i, f := range r.bad {
		if f.bad != errBadHeader.Error() || !validSegmentBytes(f.size) {
			continue
		}
		data, err := r.content(f)
		if err != nil {
			return nil, err
		}
		candidates := hunt(data, headerBytes, r.keys, r.keys.mask(g))
		candidates = slices.DeleteFunc(candidates, func(c candidate) bool { return c.number <= after || c.run < run })
		if len(candidates) == 0 {
			continue
		}
		first := candidates[0].number
		if err := r.damage(Damage{File: f.name, Generation: g, After: after, Before: first, Reason: f.bad}); err != nil {
			return nil, err
		}
		f.rescued, f.bad = true, ""
		f.header = segmentHeader{slot: f.slot, segmentBytes: f.size, generation: g, first: first, oldest: 1, run: candidates[0].run, identity: r.identity}
		r.bad = slices.Delete(r.bad, i, i+1)
		return f, nil
	}
	return nil, nil
}

// complete drops what is no longer needed, and reports what is missing from the oldest generation on.
func (r *recovery) complete(oldest Generation) error {
	needed := slices.IndexFunc(r.live, func(f *found) bool { return f.header.generation >= oldest })
	r.unused = append(r.unused, r.live[:needed]...)
	r.live = slices.Clone(r.live[needed:])
	for i, g := 0, oldest; i < len(r.live); i, g = i+1, g+1 {
		here := r.live[i].header.generation
		if here == g {
			continue
		}
		// Leave out the rest of the hole at once: it may be large where a header lies.
		f, err := r.rescue(g, 0, 0)
		switch {
		case err != nil:
			return err
		case f != nil:
			r.live = slices.Insert(r.live, i, f)
			continue
		}
		if err := r.damage(Damage{Generation: g, Before: r.live[i].header.first, Reason: "a segment is missing" + r.suspects()}); err != nil {
			return err
		}
		g = here
	}
	return nil
}

// suspects names the files that can not be read.
func (r *recovery) suspects() string {
	text := ""
	for _, f := range r.bad {
		text += fmt.Sprintf("; of %s: %s", f.name, f.bad)
	}
	return text
}

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
