package journal

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/ipcd/ipcd/internal/vfs"
)

// made is a closed journal of two sealed segments and an active one, all of whose frames are promised.
func made(t testing.TB) (*vfs.Crash, []stored) {
	t.Helper()
	fs := vfs.NewCrash(random(1))
	j, _ := mustOpen(t, small(fs))
	rng := random(2)
	var all []stored
	for len(j.Segments()) < 3 || j.Segments()[2].Bytes < 20_000 {
		all = append(all, app(j, makeContent(rng, uint64(len(all)), 6000)))
		if rng.IntN(4) == 0 || len(all)%10 == 0 {
			must(t, j.Wait(background, j.Appended()))
		}
	}
	must(t, j.Close())
	return fs, all
}

// look recovers without changing anything.
func look(fs vfs.FS, onDamage func(Damage) error) ([]stored, *recovery, error) {
	var found []stored
	r := &recovery{fs: fs, dir: dir, onDamage: onDamage}
	err := r.run(collect(&found))
	return found, r, err
}

// readPart reads the payloads of what look found and says how many can not be read.
func readPart(r *recovery, fs vfs.FS, found []stored) (lost int, err error) {
	info := &Info{fs: fs, dir: dir, slots: map[uint16]wanted{}}
	for _, f := range r.live {
		info.slots[f.slot] = wanted{file: f.name, mask: r.keys.mask(f.header.generation), limit: f.end}
	}
	for _, s := range found {
		err := readBack(info, []stored{s})
		var p *PayloadError
		if errors.As(err, &p) {
			lost++
		} else if err != nil {
			return lost, err
		}
	}
	return lost, nil
}

func isDamage(err error) bool {
	var d *DamageError
	return errors.As(err, &d) || errors.Is(err, ErrNewer)
}

// files are a journal's, by name.
func files(t testing.TB, fs vfs.FS) map[string][]byte {
	t.Helper()
	names, err := fs.ReadDir(dir)
	must(t, err)
	all := map[string][]byte{}
	for _, name := range names {
		b, err := vfs.ReadFile(fs, dir+"/"+name, 1<<30)
		must(t, err)
		all[name] = b
	}
	return all
}

func overwrite(t testing.TB, fs vfs.FS, name string, b []byte, at int64) {
	t.Helper()
	f, err := fs.Open(dir + "/" + name)
	must(t, err)
	_, err = f.WriteAt(b, at)
	must(t, errors.Join(err, f.Close()))
}

func truncate(t testing.TB, fs vfs.FS, name string, size int64) {
	t.Helper()
	f, err := fs.Open(dir + "/" + name)
	must(t, err)
	must(t, errors.Join(f.Truncate(size), f.Close()))
}

// Whatever byte rots, all that was promised is there, or the damage is told.
func TestEveryFlippedByteIsHarmlessOrReported(t *testing.T) {
	fs, all := made(t)
	const seed = 3
	rng := random(seed)
	reported, unread := 0, 0
	for name, data := range files(t, fs) {
		for at := 0; at < len(data); at++ {
			// Every byte in the headers, else one in a few; where nothing was ever written, few.
			switch zero := data[at] == 0 && at+64 < len(data); {
			case at < headerUsed, at > len(data)-2*footerBytes:
			case zero && rng.IntN(100) > 0, rng.IntN(12) > 0:
				continue
			}
			flipped := data[at] ^ byte(1+rng.IntN(255))
			overwrite(t, fs, name, []byte{flipped}, int64(at))
			found, r, err := look(fs, refuse)
			switch {
			case isDamage(err):
				reported++
			case err != nil:
				t.Fatalf("seed %d, byte %d of %s: %v", seed, at, name, err)
			default:
				if err := sameFrames(found, all); err != nil {
					t.Fatalf("seed %d, byte %d of %s is %#x: %v", seed, at, name, flipped, err)
				}
				lost := 0
				if rng.IntN(5) == 0 {
					lost, err = readPart(r, fs, found)
				}
				if err != nil || lost > 1 {
					t.Fatalf("seed %d, byte %d of %s: %d payloads are unreadable, %v", seed, at, name, lost, err)
				}
				unread += lost
			}
			overwrite(t, fs, name, data[at:at+1], int64(at))
		}
	}
	if reported < 100 || unread < 10 {
		t.Errorf("%d flips were reported and %d payloads unreadable: too few for a test that reaches everything", reported, unread)
	}
	found, _, err := look(fs, refuse)
	must(t, errors.Join(err, sameFrames(found, all)))
}

func TestEveryTruncationIsHarmlessOrReported(t *testing.T) {
	fs, all := made(t)
	const seed = 4
	rng := random(seed)
	for name, data := range files(t, fs) {
		for size := 0; size < len(data); size += 1 + rng.IntN(300) {
			truncate(t, fs, name, int64(size))
			found, _, err := look(fs, refuse)
			if err == nil {
				err = sameFrames(found, all)
			} else if isDamage(err) {
				err = nil
			}
			if err != nil {
				t.Fatalf("seed %d, %s with %d bytes: %v", seed, name, size, err)
			}
			truncate(t, fs, name, int64(len(data)))
			overwrite(t, fs, name, data[size:], int64(size))
		}
	}
}

// With the damage accepted, everything before and behind it is there, and the next start is quiet.
func TestAcceptedDamageCostsOnlyWhatIsDamaged(t *testing.T) {
	for segment := range 3 {
		fs, all := made(t)
		_, r, err := look(fs, refuse)
		must(t, err)
		f := r.live[segment]
		// The frame in the middle of the segment.
		var hit stored
		for _, s := range all {
			if len(s.at) > 0 && s.at[0].slot() == f.slot && s.at[0].offset() > f.end/2 {
				hit = s
				break
			}
		}
		overwrite(t, fs, f.name, []byte("rotten"), hit.at[0].offset()-30)
		if segment < 2 { // nor the index
			overwrite(t, fs, f.name, []byte("rotten"), f.header.segmentBytes-20)
		}
		if _, err := Open(small(fs), func(Entry) error { return nil }); !isDamage(err) {
			t.Fatalf("segment %d: opened with %v, want damage", segment, err)
		}
		var told []Damage
		o := small(fs)
		o.OnDamage = func(d Damage) error { told = append(told, d); return nil }
		j, found := mustOpen(t, o)
		var want []stored
		for _, s := range all {
			if s.number != hit.number {
				want = append(want, s)
			}
		}
		if err := sameFrames(found, want); err != nil {
			t.Errorf("segment %d: %v", segment, err)
		}
		if len(told) != 1 || told[0].File != f.name || told[0].After != hit.number-1 || told[0].Before != hit.number+1 || !strings.Contains(told[0].String(), f.name) {
			t.Errorf("segment %d: told %v, want one damage of frame %d", segment, told, hit.number)
		}
		must(t, readBack(j, found))
		if segment < 2 {
			var again []stored
			must(t, j.ReadSegment(f.header.generation, collect(&again)))
		}
		more := app(j, content{key: 1000})
		must(t, j.Close())
		if segment == 2 {
			o.OnDamage = nil
		}
		j, found = mustOpen(t, o)
		if err := sameFrames(found, append(want, more)); err != nil {
			t.Errorf("segment %d, opened again: %v", segment, err)
		}
		must(t, j.Close())
	}
}

func TestAMissingSegmentIsDamage(t *testing.T) {
	fs, all := made(t)
	must(t, fs.Remove(dir+"/0001.seg"))
	_, err := Open(small(fs), func(Entry) error { return nil })
	if !isDamage(err) || !strings.Contains(err.Error(), "missing") {
		t.Fatalf("opened with %v, want a missing segment", err)
	}
	found, _, err := look(fs, func(Damage) error { return nil })
	must(t, err)
	if len(found) == 0 || len(found) >= len(all) || found[len(found)-1].number != all[len(all)-1].number {
		t.Errorf("%d of %d frames are left, want the others' ones", len(found), len(all))
	}
}

// A header that can not be read hides neither its segment's frames nor that something is wrong.
func TestABadHeaderIsReportedAndItsFramesAreRescued(t *testing.T) {
	for segment := range 3 {
		fs, all := made(t)
		_, r, err := look(fs, refuse)
		must(t, err)
		overwrite(t, fs, r.live[segment].name, make([]byte, 512), 0)
		if _, _, err := look(fs, refuse); !isDamage(err) {
			t.Errorf("segment %d: %v, want damage", segment, err)
		}
		found, _, err := look(fs, func(Damage) error { return nil })
		must(t, err)
		if segment == 0 {
			continue // nothing says that there was one before
		}
		if err := sameFrames(found, all); err != nil {
			t.Errorf("segment %d: %v", segment, err)
		}
	}
}

func TestRefusedDamageChangesNoFile(t *testing.T) {
	for _, how := range []string{"refuse", "accept"} {
		fs, _ := made(t)
		overwrite(t, fs, "0002.seg", []byte("rotten"), headerBytes+10)
		before := files(t, fs)
		o := small(fs)
		no := errors.New("no")
		if how == "accept" {
			o.OnDamage = func(Damage) error { return nil }
			o.Accept = func() error { return no }
		}
		_, err := Open(o, func(Entry) error { return nil })
		if !isDamage(err) && !errors.Is(err, no) {
			t.Fatalf("%s: opened with %v", how, err)
		}
		if fmt.Sprint(files(t, fs)) != fmt.Sprint(before) {
			t.Errorf("%s: files were changed", how)
		}
	}
}

func TestANewerFormatIsLeftUntouched(t *testing.T) {
	fs, _ := made(t)
	var b [headerUsed]byte
	h := segmentHeader{slot: 2, segmentBytes: SegmentBytesMin, generation: 3, first: 1, oldest: 1}
	h.encode(b[:])
	le.PutUint32(b[8:], formatVersion+1)
	sealHeader(b[:])
	overwrite(t, fs, "0002.seg", b[:], 0)
	before := files(t, fs)
	o := small(fs)
	o.OnDamage = func(Damage) error { return nil }
	if _, err := Open(o, func(Entry) error { return nil }); !errors.Is(err, ErrNewer) || !strings.Contains(err.Error(), "0002.seg") {
		t.Errorf("opened with %v, want one that names the file", err)
	}
	if fmt.Sprint(files(t, fs)) != fmt.Sprint(before) {
		t.Error("files were changed")
	}
}

func TestAFileOfAnotherJournalIsDamage(t *testing.T) {
	fs, all := made(t)
	h := segmentHeader{slot: 5, segmentBytes: SegmentBytesMin, generation: 4, first: all[len(all)-1].number + 2, oldest: 1, run: 9, identity: [16]byte{9}}
	b := make([]byte, SegmentBytesMin)
	h.encode(b)
	must(t, vfs.WriteFileAtomic(fs, dir+"/0005.seg", b))
	var told []Damage
	found, _, err := look(fs, func(d Damage) error { told = append(told, d); return nil })
	must(t, errors.Join(err, sameFrames(found, all)))
	if len(told) != 1 || told[0].File != "0005.seg" || !strings.Contains(told[0].Reason, "another journal") {
		t.Errorf("told %v", told)
	}
}

func TestARenamedFileIsDamage(t *testing.T) {
	fs, _ := made(t)
	must(t, fs.Rename(dir+"/0001.seg", dir+"/0009.seg"))
	if _, err := Open(small(fs), func(Entry) error { return nil }); !isDamage(err) || !strings.Contains(err.Error(), "0001.seg") {
		t.Errorf("opened with %v", err)
	}
}

// What was cut off must not come back when the log reaches it again, at the right place with the right number.
func TestFramesThatWereCutOffStayCutOff(t *testing.T) {
	disk := vfs.NewCrash(random(1))
	j, _ := mustOpen(t, small(disk))
	// One that ends 40 bytes before a page; one of 40 bytes, as a mark is; one that is never acknowledged.
	var f Frame
	f.Meta = content{key: 1}.meta()
	f.AddPayload(nil, make([]byte, headerBytes-4*frameHeader-entryHeader-payloadAlign+frameHeader))
	first, _ := j.Append(&f)
	must(t, j.Wait(background, first))
	if end := j.Segments()[0].Bytes; end != 2*headerBytes-frameHeader {
		t.Fatalf("the first frame ends at %d", end)
	}
	j.Append(&Frame{})
	lost := app(j, content{key: 3})
	must(t, j.Wait(background, lost.number))
	disk = disk.CrashWith(vfs.AllLost, random(1))
	overwrite(t, disk, "0000.seg", make([]byte, frameHeader), 2*headerBytes-frameHeader)
	for range 3 {
		var found []Number
		j, err := Open(small(disk), func(e Entry) error { found = append(found, e.Number); return nil })
		must(t, err)
		must(t, j.Close())
		if len(found) != 1 || found[0] != first {
			t.Fatalf("frames %v, want %d alone", found, first)
		}
	}
}

// Messages are what strangers write. One that looks like a frame must not count when the end is searched.
func TestAPayloadCanNotPassForAFrame(t *testing.T) {
	fs := vfs.NewCrash(random(1))
	j, _ := mustOpen(t, small(fs))
	must(t, j.Sync())
	// A frame made by who knows everything but the identity.
	k := makeKeys([16]byte{})
	forged := make([]byte, 400)
	for at := 0; at+frameHeader <= len(forged); at += frameHeader {
		f := frame{kind: kindMark, run: j.run + 5, number: 1000, durable: 999}
		f.encode(forged[at:], k, k.mask(1), 0)
	}
	first := app(j, content{key: 1})
	must(t, j.Wait(background, first.number))
	f := Frame{Meta: content{key: 2}.meta()}
	f.AddPayload(nil, forged)
	n, p := j.Append(&f)
	must(t, j.Wait(background, n))
	fs = fs.CrashWith(vfs.NoneLost, random(2))
	// The frame is torn in its checksum.
	overwrite(t, fs, "0000.seg", []byte("torn"), p.Next(len(forged)).offset()+4)
	found, _, err := look(fs, refuse)
	if err != nil {
		t.Errorf("a forged frame made the torn tail look like damage: %v", err)
	}
	if err := sameFrames(found, []stored{first}); err != nil {
		t.Error(err)
	}
}

func TestBackupIsAJournal(t *testing.T) {
	fs, all := made(t)
	j, _ := mustOpen(t, small(fs))
	for i := range 30 {
		all = append(all, app(j, content{key: uint64(5000 + i), sizes: []int{3000}}))
	}
	must(t, j.Wait(background, j.Appended()))
	app(j, content{key: 9999, sizes: []int{100}}) // not durable
	copied := vfs.NewCrash(random(5))
	must(t, copied.MkdirAll(dir))
	freed := false
	must(t, j.Backup(func(name string, size int64, r io.Reader) error {
		if !freed {
			freed = true
			must(t, j.Free(j.Segments()[0].Generation))
			must(t, j.Free(j.Segments()[0].Generation))
			for range 60 { // would overwrite what was freed
				app(j, content{key: 7, sizes: []int{6000}})
				must(t, j.Wait(background, j.Appended()))
			}
		}
		b, err := io.ReadAll(r)
		if err != nil || int64(len(b)) != size {
			return fmt.Errorf("%s has %d bytes, want %d: %w", name, len(b), size, err)
		}
		return vfs.WriteFileAtomic(copied, dir+"/"+name, b)
	}))
	must(t, j.Close())
	restored, found := mustOpen(t, small(copied))
	must(t, sameFrames(found, all))
	must(t, readBack(restored, found))
	must(t, restored.Close())
}
