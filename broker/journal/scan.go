package journal

import (
	"errors"

	"github.com/ipcd/ipcd/internal/vfs"
)

// ScanOptions say how thorough Scan is.
type ScanOptions struct {
	Verify   bool                              // read every frame and every payload and hold them against the indexes
	Progress func(bytesDone, bytesTotal int64) // after each segment; may be nil
}

// Info is what Scan found.
type Info struct {
	Identity [16]byte
	Segments []SegmentInfo // in use, oldest first
	Frames   int64         // in them, marks and heads included
	Last     Number

	fs    vfs.FS
	dir   string
	slots map[uint16]wanted
}

// Scan reads a journal that nobody has open, and changes nothing. visit gets each frame of data, damage each damage, after
// which it goes on. A directory without a journal is an empty one.
func Scan(fs vfs.FS, dir string, o ScanOptions, visit func(Entry) error, damage func(Damage)) (*Info, error) {
	if fs == nil || dir == "" {
		return nil, errors.New("scan a journal: a file system and a directory are needed")
	}
	r := &recovery{fs: fs, dir: dir, verify: o.Verify, progress: o.Progress, onDamage: func(d Damage) error {
		damage(d)
		return nil
	}}
	if err := r.run(visit); err != nil {
		return nil, err
	}
	info := &Info{Identity: r.identity, fs: fs, dir: dir, slots: map[uint16]wanted{}}
	for _, f := range r.live {
		g := f.header.generation
		info.Segments = append(info.Segments, SegmentInfo{Generation: g, Bytes: f.end, Sealed: f.sealed, File: f.name, LastNumber: f.last})
		info.Frames += f.frames
		info.Last = f.last
		info.slots[f.slot] = wanted{file: f.name, mask: r.keys.mask(g), limit: f.end}
	}
	return info, nil
}

// ReadPayloads is Journal.ReadPayloads for what Scan found.
func (info *Info) ReadPayloads(at []Position, out func(i int, payload []byte)) error {
	list := make([]wanted, len(at))
	for i, p := range at {
		if p != 0 {
			list[i] = info.slots[p.slot()]
		}
		list[i].i, list[i].position = i, p
	}
	return readPayloads(info.fs, info.dir, list, out)
}
