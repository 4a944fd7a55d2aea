package vfs

import "slices"

const (
	sectorSize = 512  // bytes; what a disk writes whole or not at all
	pageSize   = 4096 // bytes; the unit of memory and of space
	sectors    = pageSize / sectorSize
)

// inode is a file of Crash, whatever its name.
type inode struct {
	linked  bool // has an entry, durable or not
	handles int  // how often it is open

	now   extent
	older []extent        // since the last sync, beginning with the durable one; empty if that is now
	pages map[int64]*page // by offset/pageSize; what is not there reads as zeros
	dirty []int64         // the pages that have older versions
}

// extent is the size of a file in bytes and how many of its first pages are
// reserved, written or not.
type extent struct{ size, reserved int64 }

// page is 4 KiB of a file. What lies beyond the file's size is zero.
type page struct {
	data    *[pageSize]byte    // nil for zeros
	older   *[sectors]versions // nil if no sector has any
	stuck   uint8              // by bit: sectors whose last sync failed
	charged bool               // counts as used space by itself, not as part of the reserve
}

// versions are those that a sector had since the last sync before its present
// one, beginning with the durable one. nil stands for zeros.
type versions [][]byte

// wasZeros saves memory for the most frequent case: new space is written once.
// It is shared, and has no room for an append.
var wasZeros = versions{nil}

func newInode() *inode { return &inode{pages: map[int64]*page{}} }

// pagesOf returns how many pages size bytes take.
func pagesOf(size int64) int64 { return (size + pageSize - 1) / pageSize }

// page returns a page, and makes it if need be.
func (f *inode) page(i int64) *page {
	pg := f.pages[i]
	if pg == nil {
		pg = &page{}
		f.pages[i] = pg
	}
	return pg
}

// readAt fills p and returns how much of it lies within the file.
func (f *inode) readAt(p []byte, off int64) int {
	if off >= f.now.size {
		return 0
	}
	p = p[:min(int64(len(p)), f.now.size-off)]
	for rest := p; len(rest) > 0; {
		n := min(len(rest), int(pageSize-off%pageSize))
		if pg := f.pages[off/pageSize]; pg != nil && pg.data != nil {
			copy(rest[:n], pg.data[off%pageSize:])
		} else {
			clear(rest[:n])
		}
		rest, off = rest[n:], off+int64(n)
	}
	return len(p)
}

// writePage writes b into one page, beginning at byte at of it.
func (f *inode) writePage(i int64, at int, b []byte) {
	pg := f.page(i)
	for len(b) > 0 {
		s, in := at/sectorSize, at%sectorSize
		n := min(len(b), sectorSize-in)
		// Even the same bytes are written again, and then a sync counts.
		pg.stuck &^= 1 << s
		if !pg.holds(at, b[:n]) {
			f.keepVersion(i, pg, s)
			if pg.data == nil {
				pg.data = new([pageSize]byte)
			}
			copy(pg.data[at:], b[:n])
		}
		at, b = at+n, b[n:]
	}
}

// holds reports whether the page has the bytes b at at.
func (pg *page) holds(at int, b []byte) bool {
	if pg.data == nil {
		return allZeros(b)
	}
	return string(pg.data[at:at+len(b)]) == string(b)
}

func allZeros(b []byte) bool { return string(b) == string(zeroSector[:len(b)]) }

var zeroSector [sectorSize]byte

// sector returns the present version of a sector, for reading; nil for zeros.
func (pg *page) sector(s int) []byte {
	if pg.data == nil {
		return nil
	}
	return pg.data[s*sectorSize:][:sectorSize]
}

// keepVersion remembers the present version of a sector that is about to change.
func (f *inode) keepVersion(i int64, pg *page, s int) {
	if pg.older == nil {
		pg.older = new([sectors]versions)
		f.dirty = append(f.dirty, i)
	}
	if present := pg.sector(s); present != nil {
		pg.older[s] = append(pg.older[s], slices.Clone(present))
	} else if len(pg.older[s]) == 0 {
		pg.older[s] = wasZeros
	} else {
		pg.older[s] = append(pg.older[s], nil)
	}
}

// resize sets size and reserve.
func (f *inode) resize(to extent) {
	if to != f.now {
		f.older = append(f.older, f.now)
		f.now = to
	}
}

// reserve reserves pages and grows the file to size if it is smaller.
func (f *inode) reserve(pages, size int64) {
	for i, pg := range f.pages {
		if i < pages {
			pg.charged = false
		}
	}
	f.resize(extent{max(f.now.size, size), pages})
}

// truncate sets the size and gives up the pages behind it.
func (f *inode) truncate(size int64) {
	if size < f.now.size {
		f.zeroFrom(size)
	}
	pages := pagesOf(size)
	for i, pg := range f.pages {
		if i >= pages {
			pg.charged = false
			f.dropIfEmpty(i, pg)
		}
	}
	f.resize(extent{size, min(f.now.reserved, pages)})
}

// zeroFrom overwrites everything from an offset on with zeros.
func (f *inode) zeroFrom(off int64) {
	for i, pg := range f.pages {
		if pg.data == nil || (i+1)*pageSize <= off {
			continue
		}
		from := int(max(0, off-i*pageSize))
		for from < pageSize {
			n := sectorSize - from%sectorSize
			f.writePage(i, from, zeroSector[:n])
			from += n
		}
		if off <= i*pageSize {
			pg.data = nil
		}
	}
}

// sync makes all durable but what a failed sync has left behind.
func (f *inode) sync() {
	f.older = nil
	dirty := f.dirty[:0]
	for _, i := range f.dirty {
		pg := f.pages[i]
		if pg.stuck == 0 {
			pg.older = nil
			f.dropIfEmpty(i, pg)
			continue
		}
		for s := range pg.older {
			if pg.stuck&(1<<s) == 0 {
				pg.older[s] = nil
			}
		}
		dirty = append(dirty, i)
	}
	f.dirty = dirty
}

// failSync leaves the sectors written since the last sync such that no later
// sync makes them durable. The size is the file system's own matter, in its
// own journal, and is not affected.
func (f *inode) failSync() {
	for _, i := range f.dirty {
		pg := f.pages[i]
		for s, older := range pg.older {
			if len(older) > 0 {
				pg.stuck |= 1 << s
			}
		}
	}
}

// dropIfEmpty forgets a page that says no more than its absence.
func (f *inode) dropIfEmpty(i int64, pg *page) {
	if pg.data == nil && pg.older == nil && !pg.charged {
		delete(f.pages, i)
	}
}

// needsSpace reports whether writing to a page takes space that the file does
// not have yet.
func (f *inode) needsSpace(i int64) bool {
	if i < f.now.reserved {
		return false
	}
	pg := f.pages[i]
	return pg == nil || !pg.charged
}

// chargedBelow returns how many of the first pages count by themselves.
func (f *inode) chargedBelow(pages int64) int64 {
	n := int64(0)
	for i, pg := range f.pages {
		if pg.charged && i < pages {
			n++
		}
	}
	return n
}

// pagesUsed returns the space the file takes.
func (f *inode) pagesUsed() int64 {
	return f.now.reserved + f.chargedBelow(pagesOf(maxCrashFileSize))
}
