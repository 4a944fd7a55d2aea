package journal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/ipcd/ipcd/internal/vfs"
)

const (
	readWindow = 1 << 20  // bytes read at once, unless one payload is larger
	readGap    = 16 << 10 // bytes between payloads that are read along
)

// wanted is a payload that somebody asked for.
type wanted struct {
	i        int // which one
	position Position
	file     string
	mask     uint32
	limit    int64  // where frames end in the file
	pending  []byte // from its entry on, if it is still in memory
}

func (w *wanted) fail(err error) error {
	return &PayloadError{Position: w.position, File: w.file, Offset: w.position.offset(), Err: err}
}

// ReadPayloads calls out with each payload and its index in at, in any order. The payloads belong to the
// callee. Those that can not be read are left out, and the error is a *PayloadError for the first of them; any other
// error ended the call. Whoever does not know that the positions are still in use holds: see Hold.
func (j *Journal) ReadPayloads(at []Position, out func(i int, payload []byte)) error {
	list := make([]wanted, len(at))
	j.mu.Lock()
	if errors.Is(j.err, ErrClosed) {
		defer j.mu.Unlock()
		return j.err
	}
	for i, p := range at {
		w := &list[i]
		*w = wanted{i: i, position: p}
		s := j.slots[p.slot()]
		if p == 0 || s == nil {
			continue
		}
		w.file, w.mask, w.limit = s.name(), s.mask, s.written
		if p.offset() >= s.written {
			w.pending = j.findPendingLocked(s, p.offset())
		}
	}
	j.mu.Unlock()
	return readPayloads(j.o.FS, j.o.Dir, list, out)
}

// findPendingLocked returns what is appended from an offset on, up to the end of its chunk.
func (j *Journal) findPendingLocked(s *segment, offset int64) []byte {
	for _, chunks := range [2][]*chunk{j.writing, j.pending} {
		for _, c := range chunks {
			if c.segment == s && !c.index && c.offset <= offset && offset < c.end() {
				c.shared = true
				return c.buf[offset-c.offset : len(c.buf)]
			}
		}
	}
	return nil
}

func readPayloads(fs vfs.FS, dir string, list []wanted, out func(i int, payload []byte)) error {
	slices.SortFunc(list, func(a, b wanted) int { return cmp.Compare(a.position, b.position) })
	var first error
	note := func(err error) {
		if first == nil {
			first = err
		}
	}
	for len(list) > 0 {
		w := &list[0]
		switch {
		case w.pending != nil:
			if payload, ok := decodePayload(w.pending, w.mask); ok {
				out(w.i, slices.Clone(payload))
			} else {
				note(w.fail(ErrChecksum))
			}
		case w.file == "":
			w.file = fileName(w.position.slot())
			note(w.fail(fmt.Errorf("no segment is there: %w", ErrChecksum)))
		default:
			n := 1
			for n < len(list) && list[n].file == w.file && list[n].pending == nil {
				n++
			}
			if err := readFile(fs, filepath.Join(dir, w.file), list[:n], out, note); err != nil {
				return err
			}
			list = list[n:]
			continue
		}
		list = list[1:]
	}
	return first
}

// Passing reports whether an error is want of descriptors or memory: nothing is wrong with the journal, and trying
// again may help.
func Passing(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOMEM)
}

// How long to wait for a descriptor.
const (
	openPause    = 20 * time.Millisecond
	openAttempts = 1500
)

// openPatiently opens a segment that is needed, and waits for a descriptor if there is none.
func openPatiently(fs vfs.FS, name string) (file vfs.File, err error) {
	for range openAttempts {
		if file, err = fs.OpenRead(name); !Passing(err) {
			break
		}
		time.Sleep(openPause)
	}
	return file, err
}

// readFile reads payloads of one file, in the order of their positions.
func readFile(fs vfs.FS, name string, list []wanted, out func(i int, payload []byte), note func(error)) (err error) {
	file, err := openPatiently(fs, name)
	if err != nil {
		return fmt.Errorf("open a segment: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	var win window
	for k := range list {
		w := &list[k]
		offset := w.position.offset()
		if offset < headerBytes || offset+entryHeader > w.limit {
			note(w.fail(fmt.Errorf("no frame is there: %w", ErrChecksum)))
			continue
		}
		if !win.has(offset, entryHeader) {
			if err := win.read(file, offset, offset+entryHeader, list[k:]); err != nil {
				note(w.fail(err))
				continue
			}
		}
		size := entryHeader + int64(le.Uint32(win.at(offset)))
		if size > w.limit-offset {
			note(w.fail(ErrChecksum))
			continue
		}
		if !win.has(offset, size) {
			if err := win.read(file, offset, offset+size, list[k:]); err != nil {
				note(w.fail(err))
				continue
			}
		}
		payload, ok := decodePayload(win.at(offset)[:size], w.mask)
		if !ok {
			note(w.fail(ErrChecksum))
			continue
		}
		out(w.i, append(make([]byte, 0, len(payload)), payload...)) // not the window: one kept payload would keep all of it
	}
	return nil
}

// window is a piece of a file.
type window struct {
	offset int64
	buf    []byte
}

func (w *window) has(offset, n int64) bool {
	return offset >= w.offset && offset+n <= w.offset+int64(len(w.buf))
}

func (w *window) at(offset int64) []byte { return w.buf[offset-w.offset:] }

// read moves the window to an offset. It reaches to end at least, and over those of list, which begin at the offset,
// that lie close together. How long they are is not known yet.
func (w *window) read(file io.ReaderAt, offset, end int64, list []wanted) error {
	need, limit := end, list[0].limit
	for _, next := range list[1:] {
		at := next.position.offset()
		if at > end+readGap || at+readGap > offset+readWindow {
			break
		}
		end = max(end, at+entryHeader)
	}
	end = min(max(need, min(end+readGap, offset+readWindow)), limit)
	n := int(end - offset)
	if cap(w.buf) < n {
		w.buf = make([]byte, n)
	}
	w.offset, w.buf = offset, w.buf[:n]
	got, err := file.ReadAt(w.buf, offset)
	if got < n {
		w.buf = w.buf[:got]
		if int64(got) < need-offset {
			return fmt.Errorf("read %d bytes: %w", n, err)
		}
	}
	return nil
}

// ReadSegment visits the frames of a sealed segment, from its index.
func (j *Journal) ReadSegment(g Generation, visit func(Entry) error) error {
	defer j.Hold()()
	j.mu.Lock()
	i := slices.IndexFunc(j.live, func(s *segment) bool { return s.generation == g })
	switch {
	case i < 0:
		defer j.mu.Unlock()
		return fmt.Errorf("read segment %d: it is not in use; those from %d to %d are", g, j.live[0].generation, j.active.generation)
	case !j.live[i].sealed:
		defer j.mu.Unlock()
		return fmt.Errorf("read segment %d: it is still being written", g)
	}
	s := *j.live[i]
	begin := j.live[i+1].first - 1
	j.mu.Unlock()
	if err := j.Wait(context.Background(), begin+1); err != nil { // then its index is written
		return err
	}
	r := &recovery{fs: j.o.FS, dir: j.o.Dir, keys: j.keys, onDamage: refuse}
	f := &found{name: s.name(), slot: s.slot, size: s.size, header: segmentHeader{segmentBytes: s.size, generation: g, first: s.first, run: 0}}
	index, foot, err := r.readIndex(f)
	if err != nil {
		return err
	}
	if index == nil || foot.end != s.end {
		// The frames say the same.
		if j.damaged {
			r.onDamage = func(Damage) error { return nil }
		}
		data, err := r.content(f)
		if err != nil {
			return err
		}
		scanned, err := r.scan(f, data, s.end, s.last, false)
		if err != nil {
			return err
		}
		index = scanned.index
	}
	var frames int64
	return visitIndex(s.slot, g, index, s.first, s.size, &frames, visit)
}
