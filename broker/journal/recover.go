package journal

import (
	"cmp"
	"errors"
	"fmt"
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
