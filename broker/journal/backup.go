package journal

import (
	"errors"
	"fmt"
	"io"
)

// Backup hands out a copy of the journal as it is durable now: for each file its name, its size in bytes and its
// content. The files, put in a directory, are a journal that Open recovers. Work goes on meanwhile, but
// segments freed are not used again until it is done.
func (j *Journal) Backup(w func(name string, size int64, r io.Reader) error) error {
	defer j.Hold()()
	type part struct {
		name      string
		size, end int64
	}
	var parts []part
	j.mu.Lock()
	if errors.Is(j.err, ErrClosed) {
		defer j.mu.Unlock()
		return j.err
	}
	for _, s := range j.live {
		p := part{s.name(), s.size, s.size}
		if s == j.cut.segment {
			p.end = j.cut.offset // what lies behind may be on its way
		}
		parts = append(parts, p)
		if s == j.cut.segment {
			break
		}
	}
	j.mu.Unlock()
	for _, p := range parts {
		if err := j.copyOut(p.name, p.size, p.end, w); err != nil {
			return fmt.Errorf("back up %s: %w", p.name, err)
		}
	}
	return nil
}

func (j *Journal) copyOut(name string, size, end int64, w func(name string, size int64, r io.Reader) error) (err error) {
	file, err := j.o.FS.OpenRead(j.path(name))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	return w(name, size, io.MultiReader(io.NewSectionReader(file, 0, end), io.LimitReader(zeroReader{}, size-end)))
}

type zeroReader struct{}

func (zeroReader) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}
