package journal

import (
	"fmt"
	"testing"

	"github.com/ipcd/ipcd/internal/vfs"
)

func TestScanReadsWithoutWriting(t *testing.T) {
	disk, all := made(t)
	var c counting
	fs := vfs.NewFault(disk, c.hook)
	var found []stored
	var done, total int64
	info, err := Scan(fs, dir, ScanOptions{Verify: true, Progress: func(d, n int64) { done, total = d, n }}, collect(&found),
		func(d Damage) { t.Errorf("damage: %v", d) })
	must(t, err)
	must(t, sameFrames(found, all))
	must(t, readBack(info, found))
	if done != total || total != 3*SegmentBytesMin {
		t.Errorf("progress ended at %d of %d bytes", done, total)
	}
	if len(info.Segments) != 3 || info.Last < all[len(all)-1].number || info.Frames < int64(len(all)) || info.Identity != small(fs).Identity {
		t.Errorf("%+v", info)
	}
	for kind, n := range c.seen {
		switch kind {
		case vfs.OpOpen, vfs.OpRead, vfs.OpReadDir:
		default:
			t.Errorf("%d operations %q", n, kind)
		}
	}
}

func TestScanOfNothingIsAnEmptyJournal(t *testing.T) {
	fs := vfs.NewCrash(random(1))
	must(t, fs.MkdirAll(dir))
	info, err := Scan(fs, dir, ScanOptions{}, nil, nil)
	if err != nil || len(info.Segments) != 0 || info.Frames != 0 {
		t.Errorf("%+v, %v", info, err)
	}
}

// Verifying finds what a start does not look at: payloads and frames of sealed segments.
func TestVerifyFindsEveryRottenPayloadFrameAndIndex(t *testing.T) {
	_, all := made(t)
	var s stored
	for s = range values(all) {
		if len(s.at) > 1 && s.sizes[0] > 100 {
			break
		}
	}
	name := fileName(s.at[0].slot())
	for what, at := range map[string]int64{
		"payload": s.at[0].offset() + 50,
		"frame":   s.at[0].offset() - 20,
		"index":   SegmentBytesMin - footerBytes - 30,
		"footer":  SegmentBytesMin - footerBytes + 30,
	} {
		fs, _ := made(t)
		overwrite(t, fs, name, []byte("rotten"), at)
		for _, verify := range []bool{false, true} {
			var told []Damage
			var found []stored
			_, err := Scan(fs, dir, ScanOptions{Verify: verify}, collect(&found), func(d Damage) { told = append(told, d) })
			must(t, err)
			if (len(told) > 0) != verify {
				t.Errorf("%s, verify %v: told %v", what, verify, told)
			}
			if err := sameFrames(found, all); err != nil {
				t.Errorf("%s: the frames are not all there: %v", what, err)
			}
		}
	}
}

func values(list []stored) func(func(stored) bool) {
	return func(yield func(stored) bool) {
		for _, s := range list {
			if !yield(s) {
				return
			}
		}
	}
}

// An unreadable payload is named, and costs no other one.
func TestUnreadablePayloadsAreNamedAndTheOthersRead(t *testing.T) {
	fs, all := made(t)
	j, _ := mustOpen(t, small(fs))
	var at []Position
	var want [][]byte
	for _, s := range all {
		for i := range s.sizes {
			at, want = append(at, s.at[i]), append(want, s.payload(i))
		}
	}
	hit := len(at) / 3
	overwrite(t, fs, fileName(at[hit].slot()), []byte("rotten!!"), at[hit].offset())
	at = append(at, 0, makePosition(77, 4096), makePosition(0, 8))
	seen := 0
	err := j.ReadPayloads(at, func(i int, payload []byte) {
		seen++
		if string(payload) != string(want[i]) {
			t.Errorf("payload %d is not what was written", i)
		}
	})
	if _, ok := err.(*PayloadError); !ok || seen != len(want)-1 {
		t.Errorf("%d of %d payloads, %v", seen, len(want), err)
	}
	if err := j.ReadPayloads(at[hit:hit+1], nil); err == nil {
		t.Error("read a rotten payload")
	} else if p, ok := err.(*PayloadError); !ok || p.Position != at[hit] || p.File != fileName(at[hit].slot()) || p.Offset != at[hit].offset() {
		t.Errorf("%v, want position %x", err, at[hit])
	}
	must(t, j.Close())
}

// Neighbours are read together: the number of reads follows from the bytes, not from the payloads.
func TestNeighboursAreReadTogether(t *testing.T) {
	var c counting
	o := small(vfs.NewFault(vfs.NewCrash(random(1)), c.hook))
	o.SegmentBytes = 4 << 20
	j, _ := mustOpen(t, o)
	var list []stored
	for i := range 2000 {
		list = append(list, app(j, content{key: uint64(i), sizes: []int{900}}))
	}
	for i := range 5 {
		list = append(list, app(j, content{key: uint64(i), sizes: []int{100_000, 300}}))
	}
	must(t, j.Wait(background, j.Appended()))
	c.set(nil)
	must(t, readBack(j, list))
	if n := c.count(vfs.OpRead); n > 20 {
		t.Errorf("%d reads for 2.4 MB", n)
	}
	must(t, j.Close())
}

func TestReadSegmentVisitsWhatReplayDoes(t *testing.T) {
	fs, all := made(t)
	j, _ := mustOpen(t, small(fs))
	for len(j.Segments()) < 5 {
		all = append(all, app(j, content{key: uint64(len(all)), sizes: []int{6000}}))
		must(t, j.Wait(background, j.Appended()))
	}
	var found []stored
	last := Number(0)
	for _, s := range j.Segments() {
		if err := j.ReadSegment(s.Generation, collect(&found)); (err == nil) != s.Sealed {
			t.Fatalf("segment %d: %v", s.Generation, err)
		}
		if s.Sealed {
			last = s.LastNumber
		}
	}
	n := 0
	for n < len(all) && all[n].number <= last {
		n++
	}
	must(t, sameFrames(found, all[:n]))
	must(t, j.Close())
}

func TestOptionsThatMakeNoSenseAreRefused(t *testing.T) {
	for name, change := range map[string]func(o *Options){
		"no file system":  func(o *Options) { o.FS = nil },
		"small segments":  func(o *Options) { o.SegmentBytes = 4096 },
		"large segments":  func(o *Options) { o.SegmentBytes = 64 << 20 },
		"odd segments":    func(o *Options) { o.SegmentBytes++ },
		"too little disk": func(o *Options) { o.MaxDisk = 3 * o.SegmentBytes },
		"reserve":         func(o *Options) { o.Reserve = -1 },
	} {
		o := small(vfs.NewCrash(random(1)))
		change(&o)
		if _, err := Open(o, func(Entry) error { return nil }); err == nil {
			t.Errorf("%s: opened", name)
		}
	}
}

// A batch of the largest size that the broker takes fits.
func TestTheLargestFrameFitsAnEmptySegment(t *testing.T) {
	o := small(vfs.NewCrash(random(1)))
	o.Reserve = 1
	j, _ := mustOpen(t, o)
	for extra := range 9 {
		f := Frame{Meta: content{key: 5}.meta()}
		size := MaxFrame(o.SegmentBytes) - f.Len() - entryHeader
		f.AddPayload(nil, make([]byte, size&^7))
		for f.Len() < MaxFrame(o.SegmentBytes)-int64(extra) && len(f.Meta) < 100 {
			f.Meta = append(f.Meta, 0)
		}
		if f.Len() > MaxFrame(o.SegmentBytes) {
			f.Meta = content{key: 5}.meta()
		}
		n, _ := j.Append(&f)
		must(t, j.Wait(background, n))
	}
	must(t, j.Close())
	_, found := mustOpenAndClose(t, o)
	if len(found) != 9 {
		t.Errorf("%d frames, want 9", len(found))
	}
	var f Frame
	f.AddPayload(nil, make([]byte, MaxFrame(o.SegmentBytes)))
	defer func() {
		if recover() == nil {
			t.Error("a larger frame was taken")
		}
	}()
	j.Append(&f)
}

func mustOpenAndClose(t *testing.T, o Options) (*Journal, []stored) {
	t.Helper()
	j, found := mustOpen(t, o)
	must(t, j.Close())
	return j, found
}

func TestDecodersTakeWhatEncodersMake(t *testing.T) {
	k := makeKeys([16]byte{4})
	if k.mask(1) == k.mask(2) || k.mask(1) == makeKeys([16]byte{5}).mask(1) {
		t.Error("masks repeat")
	}
	h := segmentHeader{slot: 7, segmentBytes: SegmentBytesMax, generation: 9, first: 100, oldest: 3, previousEnd: 8192, run: 4, identity: [16]byte{8}}
	var b [headerUsed]byte
	h.encode(b[:])
	if got, err := decodeSegmentHeader(b[:]); err != nil || got != h {
		t.Errorf("%+v, %v", got, err)
	}
	f := footer{indexOffset: indexOffset(SegmentBytesMin, 77), indexBytes: 77, indexSum: 5, last: 6, end: 5000, generation: 9, run: 3}
	f.encode(b[:], k.mask(9))
	if got, ok := decodeFooter(b[:footerBytes], SegmentBytesMin, 9, k.mask(9)); !ok || got != f {
		t.Errorf("%+v, %v", got, ok)
	}
	if fmt.Sprint(makePosition(3, 4096)) == "0" || makePosition(65535, SegmentBytesMax-8).slot() != 65535 || makePosition(65535, SegmentBytesMax-8).offset() != SegmentBytesMax-8 || makePosition(65535, SegmentBytesMax-8)>>38 != 0 {
		t.Error("positions do not hold what was put in")
	}
}
