package journal

import (
	"bytes"
	"hash/crc32"
	"testing"

	"github.com/ipcd/ipcd/internal/vfs"
)

// The decoders get the checksums right for whatever comes, so that what is behind them is reached.

func FuzzSegmentHeader(f *testing.F) {
	h := segmentHeader{slot: 1, segmentBytes: SegmentBytesMin, generation: 2, first: 3, oldest: 1}
	var b [headerUsed]byte
	h.encode(b[:])
	f.Add(b[:])
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = decodeSegmentHeader(b)
		if len(b) < headerUsed {
			return
		}
		copy(b, segmentMagic)
		sealHeader(b)
		h, err := decodeSegmentHeader(b)
		if err == nil && (!validSegmentBytes(h.segmentBytes) || h.oldest > h.generation) {
			t.Errorf("took %+v", h)
		}
	})
}

func FuzzFrame(f *testing.F) {
	k := makeKeys([16]byte{1})
	var frames Frame
	frames.Meta = []byte("meta")
	frames.AddPayload([]byte("head"), []byte("body"))
	h := frame{kind: kindData, run: 1, number: 5, durable: 4, meta: 4, payloads: len(frames.payloads)}
	b := make([]byte, h.bytes())
	copy(b[frameHeader:], "meta")
	copy(b[frameHeader+8:], frames.payloads)
	maskPayloads(b[frameHeader+8:], k.mask(1))
	h.encode(b, k, k.mask(1), crc32.Checksum([]byte("meta"), castagnoli))
	if got, meta, ok := decodeFrame(b, k, k.mask(1)); !ok || got != h || string(meta) != "meta" || checkPayloads(b[frameHeader+8:], k.mask(1)) >= 0 {
		f.Fatalf("%+v %q %v", got, meta, ok)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= frameHeader {
			le.PutUint32(b[36:], k.magic)
			if meta := int64(le.Uint32(b[4:])); meta <= int64(len(b))-frameHeader {
				le.PutUint32(b, crc32.Update(crc32.Checksum(b[frameHeader:frameHeader+meta], castagnoli), castagnoli, b[4:frameHeader])^k.mask(1))
			}
		}
		h, meta, ok := decodeFrame(b, k, k.mask(1))
		if !ok {
			return
		}
		if h.bytes() > int64(len(b)) || len(meta) != h.meta || h.durable >= h.number {
			t.Errorf("took %+v of %d bytes", h, len(b))
		}
		section := b[frameHeader+align8(int64(h.meta)) : h.bytes()]
		_ = checkPayloads(section, k.mask(1))
		_ = hunt(b, 0, k, k.mask(1))
	})
}

func FuzzIndex(f *testing.F) {
	h := frame{kind: kindData, meta: 3, payloads: 16}
	f.Add(appendIndex(appendIndex(nil, &h, 0, 0, []byte("one")), &h, 2, 64, []byte("two")), uint64(1))
	f.Fuzz(func(t *testing.T, index []byte, first uint64) {
		const limit = SegmentBytesMin
		reader := newIndexReader(index, Number(first), limit)
		end, number := int64(headerBytes), Number(first)-1
		for {
			e, ok := reader.next()
			if !ok {
				break
			}
			if e.offset < end || e.offset+e.bytes > limit || e.number <= number || e.payloads() > e.offset+e.bytes || e.offset%payloadAlign != 0 {
				t.Fatalf("entry %+v behind %d, frame %d", e, end, number)
			}
			end, number = e.offset+e.bytes, e.number
		}
		if end > headerBytes && len(reader.rest) == len(index) {
			t.Error("it read nothing")
		}
	})
}

func FuzzFooter(f *testing.F) {
	foot := footer{indexOffset: indexOffset(SegmentBytesMin, 77), indexBytes: 77, indexSum: 5, last: 6, end: 5000, generation: 9}
	b := make([]byte, footerBytes)
	foot.encode(b, 1)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == footerBytes {
			copy(b, footerMagic)
			le.PutUint32(b[60:], crc32.Checksum(b[:60], castagnoli)^1)
		}
		foot, ok := decodeFooter(b, SegmentBytesMin, 9, 1)
		if ok && (foot.indexOffset < headerBytes || foot.indexOffset+foot.indexBytes > SegmentBytesMin-footerBytes) {
			t.Errorf("took %+v", foot)
		}
	})
}

// Whatever the active segment holds behind its header, recovery ends, without a panic.
func FuzzRecovery(f *testing.F) {
	k := makeKeys(small(nil).Identity)
	h := segmentHeader{slot: 0, segmentBytes: SegmentBytesMin, generation: 1, first: 1, oldest: 1, run: 1, identity: small(nil).Identity}
	head := make([]byte, headerBytes)
	h.encode(head)
	mark := make([]byte, frameHeader)
	m := frame{kind: kindMark, run: 1, number: 1}
	m.encode(mark, k, k.mask(1), 0)
	f.Add(mark, uint16(0))
	f.Add(bytes.Repeat(mark, 3), uint16(40))
	f.Fuzz(func(t *testing.T, tail []byte, at uint16) {
		if len(tail) > SegmentBytesMin/2 {
			return
		}
		fs := vfs.NewCrash(random(1))
		must(t, fs.MkdirAll(dir))
		data := make([]byte, SegmentBytesMin)
		copy(data, head)
		copy(data[headerBytes:], mark)
		copy(data[min(headerBytes+int(at), SegmentBytesMin-len(tail)):], tail)
		must(t, vfs.WriteFileAtomic(fs, dir+"/0000.seg", data))
		o := small(fs)
		o.OnDamage = func(Damage) error { return nil }
		j, err := Open(o, func(Entry) error { return nil })
		must(t, err)
		n, _ := j.Append(&Frame{Meta: []byte("behind")})
		must(t, j.Wait(background, n))
		must(t, j.Close())
		o.OnDamage = nil
		found := 0
		j, err = Open(o, func(e Entry) error {
			if e.Number == n && string(e.Meta) == "behind" {
				found++
			}
			return nil
		})
		must(t, err)
		must(t, j.Close())
		if found != 1 {
			t.Errorf("what was appended behind it was found %d times", found)
		}
	})
}
