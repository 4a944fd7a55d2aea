package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"strings"
	"testing"
)

// packed is an archive in the making.
type packed struct {
	t     *testing.T
	bytes bytes.Buffer
	w     *tar.Writer
	list  manifest
}

func pack(t *testing.T) *packed {
	p := &packed{t: t, list: manifest{Format: manifestFormat, Instance: "i", Version: "v", CreatedAt: "2026-01-02T03:04:05Z"}}
	p.w = tar.NewWriter(&p.bytes)
	return p
}

// add writes an entry; header may change what stands before it.
func (p *packed) add(name string, content []byte, header ...func(*tar.Header)) {
	p.t.Helper()
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(content)), Mode: 0o600}
	for _, change := range header {
		change(h)
	}
	if err := p.w.WriteHeader(h); err != nil {
		p.t.Fatal(err)
	}
	if h.Size > 0 {
		if _, err := p.w.Write(content); err != nil {
			p.t.Fatal(err)
		}
	}
}

// file writes a file of the journal that the manifest will tell of.
func (p *packed) file(name, content string) {
	p.t.Helper()
	p.add(name, []byte(content))
	sum := sha256.Sum256([]byte(content))
	p.list.TotalBytes += int64(len(content))
	p.list.Files = append(p.list.Files, manifestFile{name, int64(len(content)), hex.EncodeToString(sum[:])})
}

// end writes the manifest and returns the archive.
func (p *packed) end() []byte {
	p.t.Helper()
	text, err := json.Marshal(p.list)
	if err != nil {
		p.t.Fatal(err)
	}
	p.add(manifestName, text)
	return p.closed()
}

func (p *packed) closed() []byte {
	p.t.Helper()
	if err := p.w.Close(); err != nil {
		p.t.Fatal(err)
	}
	return p.bytes.Bytes()
}

// unpacked collects what readBackup hands out.
type unpacked map[string]*bytes.Buffer

func (u unpacked) create(name string) (io.WriteCloser, error) {
	u[name] = new(bytes.Buffer)
	return nopCloser{u[name]}, nil
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// twoFiles is a sound archive.
func twoFiles(t *testing.T) []byte {
	p := pack(t)
	p.file("journal/0000.seg", strings.Repeat("a", 5000))
	p.file("journal/00ff.seg", "b")
	return p.end()
}

func TestBackupIsReadAsItWasWritten(t *testing.T) {
	got := unpacked{}
	m, err := readBackup(bytes.NewReader(twoFiles(t)), got.create)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got["0000.seg"].String() != strings.Repeat("a", 5000) || got["00ff.seg"].String() != "b" {
		t.Errorf("read %v", got)
	}
	if m.CreatedAt != "2026-01-02T03:04:05Z" {
		t.Errorf("manifest %+v", m)
	}
}

// An archive that ends anywhere before the end of its manifest is refused as truncated.
func TestTruncatedBackupIsRefusedWherever(t *testing.T) {
	whole := twoFiles(t)
	end := bytes.LastIndexByte(whole, '}') + 1
	for n := range end {
		if _, err := readBackup(bytes.NewReader(whole[:n]), unpacked{}.create); err == nil || !strings.Contains(err.Error(), "truncated") {
			t.Fatalf("cut to %d of %d bytes: %v", n, len(whole), err)
		}
	}
}

func TestEveryFlippedByteOfAFileIsFound(t *testing.T) {
	p := pack(t)
	p.file("journal/0000.seg", "0123456789")
	whole := p.end()
	at := bytes.Index(whole, []byte("0123456789"))
	for n := range 10 {
		flipped := bytes.Clone(whole)
		flipped[at+n] ^= 1
		if _, err := readBackup(bytes.NewReader(flipped), unpacked{}.create); err == nil || !strings.Contains(err.Error(), "SHA-256 of journal/0000.seg") {
			t.Errorf("byte %d flipped: %v", n, err)
		}
	}
}

func TestWhatIsNoBackupIsRefusedWithTheReason(t *testing.T) {
	for name, test := range map[string]struct {
		archive func(p *packed) []byte
		say     string
	}{
		"path outside": {func(p *packed) []byte {
			p.file("journal/../../0000.seg", "x")
			return p.end()
		}, "only journal/0000.seg to"},
		"absolute path": {func(p *packed) []byte {
			p.file("/journal/0000.seg", "x")
			return p.end()
		}, "only journal/0000.seg to"},
		"other directory": {func(p *packed) []byte {
			p.file("journal/sub/0000.seg", "x")
			return p.end()
		}, "only journal/0000.seg to"},
		"other file": {func(p *packed) []byte {
			p.file("journal/0000.seg.sh", "x")
			return p.end()
		}, "only journal/0000.seg to"},
		"capital name": {func(p *packed) []byte {
			p.file("journal/00FF.seg", "x")
			return p.end()
		}, "only journal/0000.seg to"},
		"name with a line feed": {func(p *packed) []byte {
			p.file("journal/0000.seg\n", "x")
			return p.end()
		}, "only journal/0000.seg to"},
		"symbolic link": {func(p *packed) []byte {
			p.add("journal/0000.seg", nil, func(h *tar.Header) { h.Typeflag, h.Linkname = tar.TypeSymlink, "/etc/passwd" })
			return p.end()
		}, "no regular file"},
		"hard link": {func(p *packed) []byte {
			p.add("journal/0000.seg", nil, func(h *tar.Header) { h.Typeflag, h.Linkname = tar.TypeLink, "/etc/passwd" })
			return p.end()
		}, "no regular file"},
		"directory": {func(p *packed) []byte {
			p.add("journal/", nil, func(h *tar.Header) { h.Typeflag = tar.TypeDir })
			return p.end()
		}, "no regular file"},
		"file twice": {func(p *packed) []byte {
			p.file("journal/0000.seg", "x")
			p.file("journal/0000.seg", "x")
			return p.end()
		}, "twice"},
		"empty file": {func(p *packed) []byte {
			p.file("journal/0000.seg", "")
			return p.end()
		}, "0 bytes"},
		"no files": {func(p *packed) []byte { return p.end() }, "no file of a journal"},
		"file that is not listed": {func(p *packed) []byte {
			p.file("journal/0000.seg", "x")
			p.add("journal/0001.seg", []byte("y"))
			return p.end()
		}, "journal/0001.seg is in it, and was not"},
		"listed file missing": {func(p *packed) []byte {
			p.file("journal/0000.seg", "x")
			p.list.Files = append(p.list.Files, manifestFile{Name: "journal/0001.seg"})
			return p.end()
		}, `"journal/0001.seg" is missing`},
		"listed twice": {func(p *packed) []byte {
			p.file("journal/0000.seg", "x")
			p.list.Files = append(p.list.Files, p.list.Files[0])
			return p.end()
		}, `"journal/0000.seg" is missing`},
		"other size": {func(p *packed) []byte {
			p.file("journal/0000.seg", "x")
			p.list.Files[0].Size = 2
			return p.end()
		}, "has 1 bytes, and had 2"},
		"other total": {func(p *packed) []byte {
			p.file("journal/0000.seg", "x")
			p.list.TotalBytes = 7
			return p.end()
		}, "1 bytes together, and 7"},
		"newer format": {func(p *packed) []byte {
			p.file("journal/0000.seg", "x")
			p.list.Format = manifestFormat + 1
			return p.end()
		}, "newer ipcd"},
		"manifest of others": {func(p *packed) []byte {
			p.file("journal/0000.seg", "x")
			p.add(manifestName, []byte("hello"))
			return p.closed()
		}, "says nothing of its format"},
		"manifest too large": {func(p *packed) []byte {
			p.file("journal/0000.seg", "x")
			p.add(manifestName, bytes.Repeat([]byte(" "), manifestLimit+1))
			return p.closed()
		}, "MANIFEST.json has 16777217 bytes"},
		"something after the manifest": {func(p *packed) []byte {
			p.file("journal/0000.seg", "x")
			text, _ := json.Marshal(p.list)
			p.add(manifestName, text)
			p.add("journal/0001.seg", []byte("y"))
			return p.closed()
		}, `"journal/0001.seg" comes after MANIFEST.json`},
		"text":       {func(*packed) []byte { return bytes.Repeat([]byte("no archive at all\n"), 100) }, "no backup"},
		"compressed": {func(*packed) []byte { return append([]byte("\x1f\x8b\x08"), make([]byte, 600)...) }, "gzip -dc"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := readBackup(bytes.NewReader(test.archive(pack(t))), unpacked{}.create); err == nil || !strings.Contains(err.Error(), test.say) {
				t.Errorf("%v; want %q in it", err, test.say)
			}
		})
	}
}

// A file that says to be larger than any of a journal is refused before a byte of it is written.
func TestOversizedFileIsNeverBegun(t *testing.T) {
	p := pack(t)
	if err := p.w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "journal/0000.seg", Size: 1 << 40}); err != nil {
		t.Fatal(err)
	}
	_ = p.w.Flush()
	got := unpacked{}
	_, err := readBackup(bytes.NewReader(p.bytes.Bytes()), got.create)
	if err == nil || !strings.Contains(err.Error(), "1099511627776 bytes") || len(got) != 0 {
		t.Errorf("%v, files %v", err, got)
	}
}

func FuzzReadBackup(f *testing.F) {
	p := pack(&testing.T{})
	p.file("journal/0000.seg", "x")
	f.Add(p.end())
	f.Add([]byte("\x1f\x8b"))
	f.Fuzz(func(t *testing.T, archive []byte) {
		got := unpacked{}
		m, err := readBackup(bytes.NewReader(archive), got.create)
		if err == nil && len(m.Files) != len(got) {
			t.Errorf("%d files read, %d listed", len(got), len(m.Files))
		}
		for name := range got {
			if strings.ContainsAny(name, "/\x00") {
				t.Errorf("a file %q was made", name)
			}
		}
	})
}
